// Whole runs: stop and resume to the bit, refusals, divergence. Small models on shards made here.
#include <cmath>

#include "small_run.h"
#include "train/plan.h"
#include "train/run_lock.h"

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
  const auto validations = [](const Config& config) { return records(config, "val"); };
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
