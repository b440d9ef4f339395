// Exclusive use of a run folder.
#pragma once

#include <string>

namespace nsa {

/// flock on run_dir/lock, which holds the pid for the message. Throws when another live process has it.
class RunLock {
 public:
  explicit RunLock(const std::string& run_dir);
  ~RunLock();
  RunLock(const RunLock&) = delete;
  RunLock& operator=(const RunLock&) = delete;

 private:
  int fd_ = -1;
};

}  // namespace nsa
