// Runs of a few steps on shards made here, for the tests of whole runs.
#pragma once

#include <cstring>

#include "catch.h"
#include "core/file.h"
#include "core/rng.h"
#include "data/shard_writer.h"
#include "device_under_test.h"
#include "error_of.h"
#include "temp_dir.h"
#include "train/checkpoint.h"
#include "train/run.h"

using namespace nsa;

inline constexpr std::int64_t kT = 24, kVocab = 29;

// Four shards: 5 sequences, less than one sequence, 3 sequences and a tail, 1 sequence: an epoch of 9 sequences ends in
// the middle of batches of 4.
inline void write_shards(const std::string& dir) {
  data::ShardInfo info;
  info.tokenizer = "test", info.vocab_size = kVocab, info.eot = 0;
  std::uint64_t n = 0;
  const Rng rng(11, "shards");
  for (std::int64_t tokens : {5 * kT + 1, kT / 2, 3 * kT + 9, kT + 1}) {
    data::ShardWriter writer(dir + "/part" + std::to_string(tokens), info, 1 << 20);
    std::vector<std::int32_t> document;
    for (std::int64_t i = 0; i + 1 < tokens; ++i) {
      const std::int32_t previous =
          document.empty() ? 1 : document.back();  // a pattern that can be learnt, with some noise
      document.push_back(rng.uniform(n++) < 0.2 ? 1 + static_cast<std::int32_t>(rng.bits(n++) % (kVocab - 1))
                                                : 1 + (previous * 5 + 3) % (kVocab - 1));
    }
    writer.document(document, tokens * 3);
    writer.finish();
  }
}

inline Config tiny_config(const std::string& dir, AttentionType type, const std::string& name) {
  Config c;
  c.model.vocab_size = kVocab, c.model.hidden_size = 16, c.model.num_layers = 2, c.model.intermediate_size = 24;
  AttentionConfig& a = c.model.attention;
  a.type = type;
  a.num_heads = 2, a.num_kv_heads = 1, a.head_dim = 8;
  a.compress_block = 4, a.compress_stride = 2, a.select_block = 4, a.select_count = 4,
  a.window = type == AttentionType::nsa ? 6 : 0;
  c.data.train = {dir + "/part*.bin"};
  c.data.val = {dir + "/part*.bin"};
  c.data.sequence_length = kT;
  c.train.steps = 12, c.train.micro_batch = 2, c.train.batch_tokens = 4 * kT;
  c.train.optimizer.lr = 3e-3;
  c.train.schedule.warmup_steps = 2;
  c.train.outlier_window = 4;
  c.eval.every = 5;
  c.checkpoint.every = 100;
  c.log.dir = dir + "/runs", c.log.name = name, c.log.tensorboard = false;
  c.threads = 2;
  c.device = test::device_under_test() == "fake" ? DeviceType::fake : DeviceType::cpu;
  check(c);
  return c;
}

inline RunOptions quiet() {
  RunOptions options;
  options.command = "test";
  options.console = false;
  return options;
}

// Trains to the end, but is told to stop after each of `stops` steps; every launch is a new Run.
inline void train_with_stops(const Config& config, std::vector<std::int64_t> stops) {
  for (std::int64_t stop : stops) {
    RunOptions options = quiet();
    options.stop_after_step = stop;
    CHECK(train(config, options) == Exit::ok);
  }
  CHECK(train(config, quiet()) == Exit::ok);
}

inline std::string final_files(const Config& config) {
  const std::string step = fmt::format("{}/checkpoints/step_{:08}/", run_dir(config), config.total_steps());
  return read_file(step + "model.safetensors") + read_file(step + "optimizer-0000-of-0001.safetensors");
}

inline std::vector<std::pair<std::int64_t, double>> step_losses(const Config& config) {
  std::vector<std::pair<std::int64_t, double>> losses;
  const std::string text = read_file(run_dir(config) + "/metrics.jsonl");
  std::size_t at = 0;
  while ((at = text.find("{\"type\":\"step\"", at)) != std::string::npos) {
    const std::size_t end = text.find('\n', at);
    const std::string line = text.substr(at, end - at);
    const auto number = [&](const char* key) { return std::stod(line.substr(line.find(key) + std::strlen(key))); };
    losses.push_back({static_cast<std::int64_t>(number("\"step\":")), number("\"loss\":")});
    at = end;
  }
  return losses;
}

/// The lines of metrics.jsonl of one type ("val"), in order.
inline std::vector<std::string> records(const Config& config, const std::string& type) {
  std::vector<std::string> lines;
  const std::string text = read_file(run_dir(config) + "/metrics.jsonl");
  for (std::size_t at = 0; (at = text.find("{\"type\":\"" + type + "\"", at)) != std::string::npos; ++at)
    lines.push_back(text.substr(at, text.find('\n', at) - at));
  return lines;
}
