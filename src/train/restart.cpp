#include "train/restart.h"

#include <filesystem>

#include "core/check.h"
#include "core/file.h"
#include "train/metrics.h"

namespace nsa {

CheckpointFile checkpoint_to_go_on_from(const std::string& run_dir, int threads, std::vector<std::string>& warnings) {
  std::vector<std::string> passed_over;
  const CheckpointFile newest = find_checkpoint(run_dir, passed_over, threads, Depth::checksums);
  warnings.insert(warnings.end(), passed_over.begin(), passed_over.end());
  if (!newest.path.empty()) return newest;

  constexpr const char* kWay =
      "nothing was changed. Bring it back or repair it, or start over in a folder of its own: --fresh log.name=NAME";
  std::string all;
  for (const std::string& sentence : passed_over) all += (all.empty() ? "" : "; ") + sentence;
  NSA_CHECK(passed_over.empty(), "{}: none of its checkpoints can be used ({}); {}", run_dir, all, kWay);

  const std::string metrics = run_dir + "/metrics.jsonl";
  if (!std::filesystem::exists(metrics)) return {};
  const std::int64_t saved = last_record(read_file(metrics), "checkpoint");
  NSA_CHECK(saved == 0,
            "{} tells of a checkpoint of step {}, but {}/checkpoints holds none: was it moved, or is its disk not "
            "mounted? {}",
            metrics, saved, run_dir, kWay);
  return {};
}

std::string newest_on_disk(const std::string& run_dir) {
  try {
    std::vector<std::string> ignored;
    const CheckpointFile newest = find_checkpoint(run_dir, ignored, 1, Depth::sizes);
    if (newest.path.empty()) return "there is no good checkpoint in " + run_dir;
    return "the newest good checkpoint is " + newest.path;
  } catch (const Error& error) {
    return error.what();
  }
}

}  // namespace nsa
