#include "train/run_lock.h"

#include "core/file.h"

namespace nsa {

namespace {

std::string lock_file(const std::string& run_dir) {
  make_folders(run_dir);
  return run_dir + "/lock";
}

}  // namespace

RunLock::RunLock(const std::string& run_dir)
    : lock_(lock_file(run_dir), "the run folder " + run_dir,
            "wait for it, stop it, or give this run another log.name") {}

}  // namespace nsa
