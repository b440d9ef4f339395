// Whole runs: stop and resume to the bit, refusals, divergence. Small models on shards made here.
#include <cmath>
#include <cstring>

#include "catch.h"
#include "core/file.h"
#include "core/rng.h"
#include "data/shard_writer.h"
#include "device_under_test.h"
#include "error_of.h"
#include "temp_dir.h"
#include "train/checkpoint.h"
#include "train/plan.h"
#include "train/run.h"
#include "train/run_lock.h"

using namespace nsa;

namespace {

constexpr std::int64_t kT = 24, kVocab = 29;

// Four shards: 5 sequences, less than one sequence, 3 sequences and a tail, 1 sequence: an epoch of 9 sequences ends in
// the middle of batches of 4.
void write_shards(const std::string& dir) {
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

Config tiny_config(const std::string& dir, AttentionType type, const std::string& name) {
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

RunOptions quiet() {
  RunOptions options;
  options.command = "test";
  options.console = false;
  return options;
}

// Trains to the end, but is told to stop after each of `stops` steps; every launch is a new Run.
void train_with_stops(const Config& config, std::vector<std::int64_t> stops) {
  for (std::int64_t stop : stops) {
    RunOptions options = quiet();
    options.stop_after_step = stop;
    CHECK(train(config, options) == Exit::ok);
  }
  CHECK(train(config, quiet()) == Exit::ok);
}

std::string final_files(const Config& config) {
  const std::string step = fmt::format("{}/checkpoints/step_{:08}/", run_dir(config), config.total_steps());
  return read_file(step + "model.safetensors") + read_file(step + "optimizer-0000-of-0001.safetensors");
}

std::vector<std::pair<std::int64_t, double>> step_losses(const Config& config) {
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

}  // namespace

TEST_CASE("a stopped and resumed run ends with the same bits and the same metrics, and takes the bytes planned",
          "[run]") {
  for (AttentionType type : {AttentionType::full, AttentionType::nsa})
    for (Precision precision : {Precision::f32, Precision::bf16}) {
      const TempDir dir;
      write_shards(dir.path());
      Config straight = tiny_config(dir.path(), type, "straight"), broken = tiny_config(dir.path(), type, "broken");
      straight.train.precision = broken.train.precision = precision;
      train_with_stops(straight, {});
      train_with_stops(broken, {1, 2, 5, 11});
      CHECK(final_files(straight) == final_files(broken));
      CHECK(step_losses(straight).size() == 12);
      CHECK(step_losses(straight) == step_losses(broken));
      const auto losses = step_losses(straight);
      CHECK(losses.back().second < losses.front().second);
      const std::size_t bytes = plan_memory(straight).bytes();
      CHECK(contains(read_file(run_dir(straight) + "/run.log"), fmt::format("{} planned, {} used", bytes, bytes)));
    }
}

TEST_CASE("a validation that a killed process had no time for is made up when the run goes on", "[run]") {
  const TempDir dir;
  write_shards(dir.path());
  const Config straight = tiny_config(dir.path(), AttentionType::nsa, "straight"),
               broken = tiny_config(dir.path(), AttentionType::nsa, "broken");
  train_with_stops(straight, {});
  const auto validations = [](const Config& config) {
    std::vector<std::string> lines;
    const std::string text = read_file(run_dir(config) + "/metrics.jsonl");
    for (std::size_t at = 0; (at = text.find("{\"type\":\"val\"", at)) != std::string::npos; ++at)
      lines.push_back(text.substr(at, text.find('\n', at) - at));
    return lines;
  };
  REQUIRE(validations(straight).size() == 3);  // after 5, 10 and the last
  for (std::int64_t killed_after : {5, 12}) {
    RunOptions options = quiet();
    options.stop_after_step = killed_after;
    CHECK(train(broken, options) == Exit::ok);
    const std::string path = run_dir(broken) + "/metrics.jsonl";
    std::string text = read_file(path);
    const std::size_t at = text.find(fmt::format("{{\"type\":\"val\",\"step\":{},", killed_after));
    REQUIRE(at != std::string::npos);
    text.erase(at, text.find('\n', at) + 1 - at);
    write_file_atomic(path, text);
    CHECK(!run_finished(broken));
  }
  CHECK(train(broken, quiet()) == Exit::ok);
  CHECK(run_finished(broken));
  CHECK(validations(broken) == validations(straight));
}

TEST_CASE("a resumed run that lost its optimizer state would be noticed", "[run]") {
  const TempDir dir;
  write_shards(dir.path());
  const Config straight = tiny_config(dir.path(), AttentionType::full, "straight"),
               broken = tiny_config(dir.path(), AttentionType::full, "broken");
  train_with_stops(straight, {});
  RunOptions options = quiet();
  options.stop_after_step = 6;
  CHECK(train(broken, options) == Exit::ok);

  std::vector<std::string> warnings;
  const CheckpointFile at = find_checkpoint(run_dir(broken), warnings);
  REQUIRE(at.step == 6);
  {
    const SafetensorsReader weights(model_file(at)), moments(optimizer_file(at));
    std::vector<NamedTensor> w, m;
    for (const auto& [name, t] : weights.tensors()) w.push_back({name, t});
    std::vector<std::vector<float>> zeros;
    for (const auto& [name, t] : moments.tensors()) {
      zeros.emplace_back(static_cast<std::size_t>(t.numel()), 0.0f);
      m.push_back({name, {zeros.back().data(), DType::f32, t.shape}});
    }
    save_checkpoint(run_dir(broken), load_state(at), w, m, 2);
  }
  CHECK(train(broken, quiet()) == Exit::ok);
  CHECK(final_files(straight) != final_files(broken));
}

TEST_CASE("a finished run has nothing to do and does not change", "[run]") {
  const TempDir dir;
  write_shards(dir.path());
  const Config config = tiny_config(dir.path(), AttentionType::nsa, "done");
  train_with_stops(config, {});
  const std::string before = final_files(config);
  CHECK(train(config, quiet()) == Exit::ok);
  CHECK(final_files(config) == before);
  CHECK(step_losses(config).size() == 12);
  // "memory: N planned, N used": every byte of the run was planned
  const std::string log = read_file(run_dir(config) + "/run.log");
  const std::size_t at = log.find("memory: ");
  REQUIRE(at != std::string::npos);
  const std::size_t planned = std::stoul(log.substr(at + 8)),
                    used = std::stoul(log.substr(log.find("planned, ", at) + 9));
  CHECK(planned == used);
}

TEST_CASE("a changed config is refused with the difference named", "[run]") {
  const TempDir dir;
  write_shards(dir.path());
  const Config config = tiny_config(dir.path(), AttentionType::nsa, "run");
  RunOptions stop = quiet();
  stop.stop_after_step = 3;
  CHECK(train(config, stop) == Exit::ok);

  Config other = config;
  other.model.hidden_size = 32;
  std::string said = error_of([&] { train(other, quiet()); });
  CHECK(contains(said, "model.hidden_size"));
  CHECK(contains(said, "16"));
  CHECK(contains(said, "32"));

  other = config;
  other.data.seed = 5;
  said = error_of([&] { train(other, quiet()); });
  CHECK(contains(said, "data.seed"));
  CHECK(contains(said, "--force-data"));

  other = config;
  other.train.optimizer.lr = 1e-3;
  said = error_of([&] { train(other, quiet()); });
  CHECK(contains(said, "train.optimizer.lr"));
  CHECK(contains(said, "--force-schedule"));
  RunOptions force = quiet();
  force.force_schedule = true;
  CHECK(train(other, force) == Exit::ok);

  said = error_of([&] {
    RunOptions fresh = quiet();
    fresh.fresh = true;
    train(config, fresh);
  });
  CHECK(contains(said, "--fresh"));
  CHECK(contains(said, "log.name"));
}

TEST_CASE("changed shard contents are noticed", "[run]") {
  const TempDir dir;
  write_shards(dir.path());
  const Config config = tiny_config(dir.path(), AttentionType::full, "run");
  RunOptions stop = quiet();
  stop.stop_after_step = 3;
  CHECK(train(config, stop) == Exit::ok);
  const std::string shard = fmt::format("{}/part{}_000000.bin", dir.path(), 5 * kT + 1);
  std::string bytes = read_file(shard);
  bytes[1024 + 40] = static_cast<char>(bytes[1024 + 40] ^ 1);
  write_file_atomic(shard, bytes);
  CHECK(contains(error_of([&] { train(config, quiet()); }), "--force-data"));
}

TEST_CASE("a diverged run stops with exit code 3, a saved state and finite weights", "[run]") {
  const TempDir dir;
  write_shards(dir.path());
  Config config = tiny_config(dir.path(), AttentionType::nsa, "diverged");
  config.train.optimizer.lr = 1000;  // weights of 1000 after the first step: logits overflow float
  config.train.optimizer.weight_decay = 0;
  config.train.schedule.warmup_steps = 0;
  config.train.max_skipped = 3;
  config.train.steps = 50;
  Exit code = Exit::ok;
  try {
    code = train(config, quiet());
  } catch (const Error& error) {
    code = error.code();
    CHECK(contains(error.what(), "non-finite"));
  }
  CHECK(code == Exit::non_finite);
  std::vector<std::string> warnings;
  const CheckpointFile saved = find_checkpoint(run_dir(config), warnings);
  REQUIRE(!saved.path.empty());
  CHECK(load_state(saved).skipped_in_row == 3);
  const SafetensorsReader weights(model_file(saved));
  for (const auto& [name, t] : weights.tensors())
    for (std::int64_t i = 0; i < t.numel(); ++i) REQUIRE(std::isfinite(t.f32()[i]));
}

TEST_CASE("a run folder belongs to one process", "[run]") {
  const TempDir dir;
  write_shards(dir.path());
  const Config config = tiny_config(dir.path(), AttentionType::full, "locked");
  make_folders(run_dir(config));
  const RunLock lock(run_dir(config));
  CHECK(contains(error_of([&] { train(config, quiet()); }), run_dir(config)));
}
