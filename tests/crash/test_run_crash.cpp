// Whole runs on disks that fail: what is said is what is on the disk.
#include <algorithm>
#include <csignal>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "catch.h"
#include "core/file.h"
#include "data/shard_writer.h"
#include "error_of.h"
#include "syscalls.h"
#include "temp_dir.h"
#include "train/checkpoint.h"
#include "train/run.h"

using namespace nsa;
namespace fs = std::filesystem;

namespace {

constexpr std::int64_t kT = 16, kVocab = 17;

struct Scene {
  TempDir dir;
  Config config;
  RunOptions options;
  std::string run, checkpoints, log;

  explicit Scene(std::int64_t steps = 6) {
    data::ShardInfo info;
    info.tokenizer = "test", info.vocab_size = kVocab, info.eot = 0;
    data::ShardWriter writer(dir.path() + "/part", info, 1 << 20);
    std::vector<std::int32_t> document;
    for (int i = 0; i < 20 * kT; ++i) document.push_back(1 + i * i % (kVocab - 1));
    writer.document(document, 20 * kT);
    writer.finish();
    config.model.vocab_size = kVocab, config.model.hidden_size = 8, config.model.num_layers = 1;
    config.model.intermediate_size = 8, config.model.attention.type = AttentionType::full;
    config.model.attention.num_heads = 1, config.model.attention.num_kv_heads = 1, config.model.attention.head_dim = 8;
    config.data.train = {dir.path() + "/part*.bin"};
    config.data.sequence_length = kT;
    config.train.steps = steps, config.train.micro_batch = 2, config.train.batch_tokens = 2 * kT;
    config.checkpoint.every = 2;
    config.log.dir = dir.path(), config.log.name = "run", config.log.tensorboard = false;
    config.threads = 1;
    check(config);
    options.command = "test", options.console = false;
    run = dir.path() + "/run", checkpoints = run + "/checkpoints", log = run + "/run.log";
  }
  /// The disk is full for all that lies in checkpoints/ from the end of this step on.
  void full_after(std::int64_t step) {
    options.on_step = [this, step](std::int64_t done, double) {
      if (done == step) fault::refuse("write " + checkpoints, ENOSPC);
    };
  }
  std::string error() {
    fault::arm(fault::Action::none, -1);
    const std::string said = error_of([&] { train(config, options); });
    fault::disarm();
    return said;
  }
};

std::size_t count(const std::string& part) {
  const auto& trace = fault::trace();
  return static_cast<std::size_t>(std::count_if(trace.begin(), trace.end(), [&](const std::string& call) {
    return contains(call, part) && call.rfind("create ", 0) == 0;
  }));
}

std::string weights(const Scene& scene, std::int64_t step) {
  return read_file(fmt::format("{}/step_{:08}/model.safetensors", scene.checkpoints, step));
}

}  // namespace

TEST_CASE("the last checkpoint cannot be saved: tried twice, then an error that names what is there") {
  Scene scene;
  scene.full_after(6);
  const std::string said = scene.error();
  CHECK(contains(said, "6 steps done, but the state of step 6 is NOT saved: "));
  CHECK(contains(said, std::strerror(ENOSPC)));
  CHECK(contains(said, "the newest good checkpoint is " + scene.checkpoints + "/step_00000004"));
  CHECK(count("step_00000006.tmp-") == 2);
  CHECK_FALSE(contains(read_file(scene.log), "results in"));
  CHECK_FALSE(run_finished(scene.config));
  scene.options.on_step = nullptr;  // there is room again: the same command ends the run
  CHECK(scene.error().empty());
  CHECK(run_finished(scene.config));

  Scene none;
  none.full_after(1);
  CHECK(contains(none.error(), "there is no good checkpoint in " + none.run));
}

TEST_CASE("a save that fails once at the end is tried again and is then no error") {
  Scene scene;
  scene.options.on_step = [](std::int64_t step, double) {
    if (step == 6) fault::arm(fault::Action::error, 3, ENOSPC);
  };
  CHECK(scene.error().empty());
  CHECK(fault::happened());
  CHECK(run_finished(scene.config));
  CHECK(contains(read_file(scene.log), "the state of step 6 is NOT saved: "));
  CHECK(contains(read_file(scene.log), "6 steps done; results in"));
}

TEST_CASE("asked to stop on a full disk: an error, not \"saved\"") {
  for (int signal : {SIGTERM, SIGINT, SIGHUP, SIGUSR2}) {
    Scene scene(1000);
    scene.full_after(4);
    const auto full = scene.options.on_step;
    scene.options.on_step = [&](std::int64_t step, double loss) {
      full(step, loss);
      if (step == 5) raise(signal);
    };
    const std::string said = scene.error();
    CHECK(contains(said, ": stopped after step 5 of 1000, but the state of step 5 is NOT saved: "));
    CHECK(contains(said, "the newest good checkpoint is " + scene.checkpoints + "/step_00000002"));
    CHECK_FALSE(contains(read_file(scene.log), ", saved;"));
  }
}

TEST_CASE("diverged on a full disk: the sentence does not say saved") {
  Scene scene(100);
  scene.config.train.optimizer.lr = 1e30, scene.config.train.optimizer.weight_decay = 0;
  scene.config.train.schedule.warmup_steps = 0;
  scene.config.train.max_skipped = 3;
  scene.full_after(1);
  const std::string said = scene.error();
  CHECK(contains(said, "non-finite"));
  CHECK(contains(said, "is NOT saved: "));
  CHECK(contains(said, "there is no good checkpoint in"));
}

TEST_CASE("the metrics are on the disk before the checkpoint that speaks of them") {
  Scene scene;
  CHECK(scene.error().empty());
  const auto& trace = fault::trace();
  const auto last = [&](const std::string& call, std::size_t before) {
    for (std::size_t i = before; i-- > 0;)
      if (contains(trace[i], call)) return i;
    return trace.size();
  };
  int renames = 0;
  for (std::size_t i = 0; i < trace.size(); ++i) {
    const std::string call = trace[i], to = call.substr(call.rfind(' '));
    if (call.rfind("rename " + scene.checkpoints, 0) != 0 || contains(to, ".tmp-") || contains(to, ".old-")) continue;
    const std::size_t synced = last("fdatasync " + scene.run + "/metrics.jsonl", i),
                      written = last("write " + scene.run + "/metrics.jsonl", i);
    REQUIRE(synced < i);
    CHECK(written < synced);
    ++renames;
  }
  CHECK(renames == 3);
}

TEST_CASE("SIGUSR1 saves and goes on") {
  Scene scene;
  scene.config.checkpoint.every = 0;
  scene.options.on_step = [](std::int64_t step, double) {
    if (step == 3) raise(SIGUSR1);
  };
  CHECK(scene.error().empty());
  CHECK(fs::exists(scene.checkpoints + "/step_00000003"));
  CHECK(fs::exists(scene.checkpoints + "/step_00000006"));
  CHECK_FALSE(fs::exists(scene.checkpoints + "/step_00000004"));
}

TEST_CASE("an error in the middle of a run: the last finished step is saved, and the run goes on from there") {
  Scene whole, broken;
  CHECK(whole.error().empty());
  broken.options.on_step = [&](std::int64_t step, double) {
    if (step == 5) fail("the data are gone");
  };
  const std::string said = broken.error();
  CHECK(contains(said, "the data are gone (the state of step 5 is saved in " + broken.checkpoints + "/step_00000005)"));
  broken.options.on_step = nullptr;
  CHECK(broken.error().empty());
  CHECK((weights(whole, 6) == weights(broken, 6)));
}

TEST_CASE("data that go bad in the middle of a step: the last finished step is saved, as if it had ended there") {
  for (const bool shorter : {false, true}) {
    Scene whole(12), broken(12);
    for (Scene* scene : {&whole, &broken}) scene->config.train.batch_tokens = 4 * kT;  // two micro-batches
    CHECK(whole.error().empty());
    const std::string shard = broken.dir.path() + "/part_000000.bin", good = read_file(shard);
    broken.config.checkpoint.every = 0;
    broken.options.on_step = [&](std::int64_t step, double) {
      if (step != 5) return;
      if (shorter) return fs::resize_file(shard, 1024);  // of the header
      std::ofstream(shard, std::ios::binary | std::ios::in | std::ios::out)
          << good.substr(0, 1024) << std::string(good.size() - 1024, '\xff');
    };
    const std::string said = broken.error();
    INFO(said);
    CHECK(contains(said, shard));
    std::vector<std::string> warnings;
    const CheckpointFile saved = find_checkpoint(broken.run, warnings);
    REQUIRE(saved.step >= 5);  // one micro-batch ahead had been read
    CHECK(saved.step <= 6);
    CHECK(contains(said, fmt::format("(the state of step {} is saved in {})", saved.step, saved.path)));
    CHECK(load_state(saved).position == 4 * saved.step);
    CHECK(load_state(saved).tokens == 4 * kT * saved.step);
    std::ofstream(shard, std::ios::binary) << good;
    broken.options.on_step = nullptr;
    CHECK(broken.error().empty());
    CHECK((weights(whole, 12) == weights(broken, 12)));
  }
}
