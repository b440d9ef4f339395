#include "train/resume.h"

namespace nsa {

namespace {

enum class Kind { free, model, data, schedule };

// What a changed field means for a run that goes on.
Kind kind_of(const std::string& path) {
  const auto starts = [&](const char* prefix) { return path.rfind(prefix, 0) == 0; };
  if (starts("model.")) return Kind::model;
  if (starts("data.val")) return Kind::free;
  if (starts("data.")) return Kind::data;
  if (starts("train.micro_batch") || starts("train.recompute") || starts("train.max_skipped") ||
      starts("train.outlier_window"))
    return Kind::free;
  if (starts("train.")) return Kind::schedule;
  return Kind::free;
}

std::string joined(const std::vector<std::string>& parts) {
  std::string all;
  for (const std::string& p : parts) all += (all.empty() ? "" : "; ") + p;
  return all;
}

}  // namespace

std::vector<std::string> check_resume(const Config& now, const TrainState& state, std::uint64_t data_fingerprint,
                                      const std::string& checkpoint, const RunOptions& options) {
  Config before = parse_config(state.config, checkpoint + "/state.json"), after = now;
  std::vector<std::string> model, data, schedule, warnings;
  for (const std::string& line : differences(fields_of(before), fields_of(after))) {
    switch (kind_of(line.substr(0, line.find(':')))) {
      case Kind::model: model.push_back(line); break;
      case Kind::data: data.push_back(line); break;
      case Kind::schedule: schedule.push_back(line); break;
      case Kind::free: break;
    }
  }
  if (data.empty() && data_fingerprint != state.data_fingerprint)
    data.push_back("the contents of data.train changed since the run began");

  if (!model.empty()) {
    fail_usage("{} belongs to another model ({}): go on with its own config, or start a new run with log.name=NAME",
               checkpoint, joined(model));
  }
  if (!data.empty() && !options.force_data) {
    fail_usage(
        "{} was trained on other data ({}): start a new run with log.name=NAME, or give --force-data to go on anyway",
        checkpoint, joined(data));
  }
  if (!schedule.empty() && !options.force_schedule) {
    fail_usage(
        "{} was trained on another schedule ({}): start a new run with log.name=NAME, or give --force-schedule to go "
        "on anyway",
        checkpoint, joined(schedule));
  }
  if (!data.empty()) warnings.push_back("--force-data: going on although " + joined(data));
  if (!schedule.empty()) warnings.push_back("--force-schedule: going on although " + joined(schedule));
  return warnings;
}

}  // namespace nsa
