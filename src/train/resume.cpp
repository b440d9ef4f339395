#include "train/resume.h"

namespace nsa {

namespace {

enum class Kind { free, model, data, precision, schedule };

bool starts(const std::string& path, const char* prefix) { return path.rfind(prefix, 0) == 0; }

// What a changed field means for a run that goes on.
Kind kind_of(const std::string& path) {
  if (starts(path, "model.")) return Kind::model;
  if (starts(path, "data.val")) return Kind::free;
  if (starts(path, "data.")) return Kind::data;
  if (starts(path, "train.precision")) return Kind::precision;
  for (const char* free : {"train.micro_batch", "train.recompute", "train.max_skipped", "train.outlier_window"}) {
    if (starts(path, free)) return Kind::free;
  }
  if (starts(path, "train.")) return Kind::schedule;
  return Kind::free;
}

// Fields that do nothing in either of the two models.
bool is_idle(const std::string& path, const AttentionConfig& a, const AttentionConfig& b) {
  const std::string prefix = "model.attention.";
  if (!starts(path, prefix.c_str())) return false;
  const std::string field = path.substr(prefix.size());
  if (field == "compress_hidden" && a.compressor != Compressor::mlp && b.compressor != Compressor::mlp) return true;
  const bool only_nsa =
      starts(field, "compress") || starts(field, "select_") || field == "shared_kv" || field == "rope_before_compress";
  return only_nsa && a.type == AttentionType::full && b.type == AttentionType::full;
}

std::string joined(const std::vector<std::string>& parts) {
  std::string all;
  for (const std::string& p : parts) all += (all.empty() ? "" : "; ") + p;
  return all;
}

// What differs, by kind: "train.optimizer.lr: 0.001 -> 0.002".
struct Differences {
  std::vector<std::string> model, data, precision, schedule;

  Differences(SavedConfig& before, Config& now, const TrainState& state, const DataIdentity& identity) {
    const bool same_data = identity.fingerprint == state.data_fingerprint,
               same_tokenizer = state.tokenizer_hash && identity.tokenizer_hash == state.tokenizer_hash;
    for (const std::string& line : differences(fields_of(before.config), fields_of(now))) {
      const std::string path = line.substr(0, line.find(':'));
      if (!before.knows(path) || is_idle(path, before.config.model.attention, now.model.attention)) continue;
      if ((path == "data.train" && same_data) || (path == "data.tokenizer" && same_tokenizer)) continue;  // only moved
      switch (kind_of(path)) {
        case Kind::model: model.push_back(line); break;
        case Kind::data: data.push_back(line); break;
        case Kind::precision: precision.push_back(line); break;
        case Kind::schedule: schedule.push_back(line); break;
        case Kind::free: break;
      }
    }
    if (data.empty() && !same_data) data.push_back("the contents of data.train changed since the run began");
    if (data.empty() && state.tokenizer_hash && identity.tokenizer_hash && !same_tokenizer)
      data.push_back("data.tokenizer is another model now than when the run began");
  }
};

}  // namespace

std::vector<std::string> check_resume(const Config& now, const TrainState& state, const DataIdentity& data,
                                      const std::string& checkpoint, const RunOptions& options) {
  SavedConfig before = read_saved_config(state.config, checkpoint + "/state.json");
  Config after = now;
  const Differences d(before, after, state, data);
  std::vector<std::string> warnings;
  if (!before.old.notes.empty())
    warnings.push_back(fmt::format("{}: written by another version ({})", checkpoint, joined(before.old.notes)));

  if (!d.model.empty()) {
    fail_usage("{} belongs to another model ({}): go on with its own config, or start a new run with log.name=NAME",
               checkpoint, joined(d.model));
  }
  const auto allow = [&](const std::vector<std::string>& lines, bool forced, const char* option, const char* what) {
    if (lines.empty()) return;
    if (!forced) {
      fail_usage("{} was {} ({}): start a new run with log.name=NAME, or give {} to go on anyway", checkpoint, what,
                 joined(lines), option);
    }
    warnings.push_back(fmt::format("{}: going on although {}", option, joined(lines)));
  };
  allow(d.data, options.force_data, "--force-data", "trained on other data");
  allow(d.precision, options.force_precision, "--force-precision",
        "computed in another number format, though its weights and moments are f32 in any case");
  allow(d.schedule, options.force_schedule, "--force-schedule", "trained on another schedule");
  return warnings;
}

}  // namespace nsa
