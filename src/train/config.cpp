#include "train/config.h"

#include <algorithm>
#include <cmath>

#include "core/file.h"

namespace nsa {

namespace {

void check_length(const TrainConfig& train) {
  if (train.steps == 0 && train.tokens == 0)
    fail_usage("either train.steps or train.tokens must say how long to train; both are 0 or missing");
  if (train.steps != 0 && train.tokens != 0) {
    fail_usage(
        "train.steps = {} and train.tokens = {} both say how long to train; remove one (train.tokens=0 or "
        "train.steps=0)",
        train.steps, train.tokens);
  }
}

void check_batch(const Config& c) {
  const std::int64_t micro = c.train.micro_batch * c.data.sequence_length, batch = c.train.batch_tokens;
  if (batch % micro == 0) return;
  const std::int64_t below = batch / micro * micro;
  const std::string nearest = below ? fmt::format("{} or {}", below, below + micro) : fmt::format("{}", micro);
  fail_usage(
      "train.batch_tokens = {} must be a multiple of train.micro_batch * data.sequence_length = {} * {} = {}; the "
      "nearest is {}",
      batch, c.train.micro_batch, c.data.sequence_length, micro, nearest);
}

void check_schedule(const Config& c) {
  const ScheduleConfig& s = c.train.schedule;
  const std::int64_t steps = c.total_steps();
  if (s.warmup_steps > steps)
    fail_usage("train.schedule.warmup_steps = {} is more than the {} steps of the run", s.warmup_steps, steps);
  if (s.type != ScheduleType::wsd) return;
  const auto decay = static_cast<std::int64_t>(std::llround(s.decay_fraction * static_cast<double>(steps)));
  if (s.warmup_steps + decay > steps) {
    fail_usage(
        "train.schedule: warmup_steps = {} and decay_fraction = {} ({} steps) do not fit into the {} steps of the run",
        s.warmup_steps, s.decay_fraction, decay, steps);
  }
}

void check_optimizer(const OptimizerConfig& o) {
  if (o.beta1 >= 1)
    fail_usage("train.optimizer.beta1 = {} must be below 1: the bias correction divides by 1 - beta1", o.beta1);
  if (o.beta2 >= 1)
    fail_usage("train.optimizer.beta2 = {} must be below 1: the bias correction divides by 1 - beta2", o.beta2);
  if (o.eps == 0) fail_usage("train.optimizer.eps = 0 divides zero by zero where a gradient is 0; 1e-8 is usual");
}

// What the model would ignore. Only what nobody leaves in a complete file: with full attention NSA's fields stay as
// they are, so that `diff` shows one line.
void check_compressor(const AttentionConfig& a) {
  if (a.type != AttentionType::nsa || a.compressor == Compressor::mlp || a.compress_hidden == 0) return;
  fail_usage(
      "model.attention.compress_hidden = {} is the hidden size of the \"mlp\" compressor, but compressor is \"{}\": "
      "set it to 0",
      a.compress_hidden, kCompressors[static_cast<std::size_t>(a.compressor)]);
}

void check_globs(const char* name, const std::vector<std::string>& globs) {
  for (const std::string& glob : globs) {
    if (glob.empty()) fail_usage("{} holds an empty string, expected globs of token shards", name);
  }
}

void check_names(const Config& c) {
  if (c.data.train.empty())
    fail_usage("data.train is an empty list, expected at least one glob of token shards to learn from");
  check_globs("data.train", c.data.train);
  check_globs("data.val", c.data.val);
  if (c.eval.every > 0 && c.data.val.empty())
    fail_usage(
        "eval.every = {} asks for validation, but data.val is empty; name validation shards or set eval.every to 0",
        c.eval.every);
  if (c.eval.sample_every > 0 && c.data.tokenizer.empty()) {
    fail_usage(
        "eval.sample_every = {} asks for samples, but data.tokenizer is empty; name the tokenizer or set "
        "eval.sample_every to 0",
        c.eval.sample_every);
  }
  if (c.log.dir.empty()) fail_usage("log.dir is empty, expected the folder of all runs");
  if (c.log.name.find('/') != std::string::npos || c.log.name == "." || c.log.name == "..") {
    fail_usage("log.name = \"{}\" must be the name of one folder; its place is log.dir", c.log.name);
  }
}

/// "configs/shakespeare.json" -> "shakespeare"
std::string stem_of(const std::string& path) {
  const std::string file = path.substr(path.rfind('/') + 1);  // npos + 1 == 0
  const std::size_t dot = file.rfind('.');
  return dot == std::string::npos || dot == 0 ? file : file.substr(0, dot);
}

void expand_paths(Config& config) {
  for (std::string& glob : config.data.train) glob = expand_home(glob);
  for (std::string& glob : config.data.val) glob = expand_home(glob);
  config.data.tokenizer = expand_home(config.data.tokenizer);
  config.log.dir = expand_home(config.log.dir);
}

Config read(const std::string& text, const std::string& origin, const std::vector<std::string>& overrides) {
  Config config;
  const FieldList list = fields_of(config);
  read_json(list, text, origin);
  for (const std::string& assignment : overrides) apply_override(list, assignment);
  expand_paths(config);
  return config;
}

/// A sentence about the whole begins with the file it is about.
void check_from(const Config& config, const std::string& origin) {
  try {
    check(config);
  } catch (const Error& error) {
    throw Error(origin + ": " + error.what(), error.code());
  }
}

}  // namespace

void check(const Config& config) {
  check_ranges(fields_of(const_cast<Config&>(config)), "");  // the list can also write; it is only read here
  check(config.model);
  check_compressor(config.model.attention);
  check_length(config.train);
  check_batch(config);
  check_schedule(config);
  check_optimizer(config.train.optimizer);
  check_names(config);
}

Config parse_config(const std::string& text, const std::string& origin, const std::vector<std::string>& overrides) {
  const Config config = read(text, origin, overrides);
  check_from(config, origin);
  return config;
}

Config load_config(const std::string& path, const std::vector<std::string>& overrides) {
  std::string text;
  try {
    text = read_file(path);
  } catch (const Error& error) {
    throw Error(error.what(), Exit::usage);
  }
  Config config = read(text, path, overrides);
  if (config.log.name.empty()) config.log.name = stem_of(path);
  check_from(config, path);
  return config;
}

bool SavedConfig::knows(const std::string& path) const {
  return std::find(old.unknown.begin(), old.unknown.end(), path) == old.unknown.end();
}

SavedConfig read_saved_config(const std::string& text, const std::string& origin) {
  SavedConfig saved;
  saved.old = read_old_json(fields_of(saved.config), text, origin);
  return saved;
}

std::string to_json(const Config& config) { return write_json(fields_of(const_cast<Config&>(config))); }

std::string config_reference() {
  Config config;
  return markdown_reference(fields_of(config));
}

std::string config_schema() {
  Config config;
  return json_schema(fields_of(config));
}

}  // namespace nsa
