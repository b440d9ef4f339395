// What may change between a checkpoint and the config that goes on from it, and configs of other versions.
#include <filesystem>
#include <nlohmann/json.hpp>

#include "data/tools.h"
#include "small_run.h"

namespace {

void stop_after(const Config& config, std::int64_t step) {
  RunOptions options = quiet();
  options.stop_after_step = step;
  REQUIRE(train(config, options) == Exit::ok);
}

// Saves the newest checkpoint again with another state.
template <class F>
void change_state(const Config& config, F&& change) {
  std::vector<std::string> warnings;
  const CheckpointFile at = find_checkpoint(run_dir(config), warnings);
  TrainState state = load_state(at);
  const SafetensorsReader weights(model_file(at)), moments(optimizer_file(at));
  std::vector<NamedTensor> w, m;
  for (const auto& [name, t] : weights.tensors()) w.push_back({name, t});
  for (const auto& [name, t] : moments.tensors()) m.push_back({name, t});
  change(state);
  save_checkpoint(run_dir(config), state, w, m, 2);
}

template <class F>
void change_saved_config(const Config& config, F&& change) {
  change_state(config, [&](TrainState& state) {
    auto json = nlohmann::json::parse(state.config);
    change(json);
    state.config = json.dump();
  });
}

}  // namespace

TEST_CASE("data and tokenizer that only moved are the same data", "[resume]") {
  const TempDir dir;
  write_shards(dir.path());
  std::filesystem::copy_file(small_model(), dir / "t.model");
  Config config = tiny_config(dir.path(), AttentionType::full, "moved");
  config.model.vocab_size = 400, config.data.tokenizer = dir / "t.model";
  const data::ShardInfo info{.tokenizer = "t", .tokenizer_hash = 0, .vocab_size = 400, .eot = 0};
  data::ShardWriter writer(dir / "data", info, 1 << 20);
  for (int i = 0; i < 20; ++i) writer.document({1, 2, 3, 4, 5, 6, 7, 8, 9}, 9);
  writer.finish();
  config.data.train = config.data.val = {dir / "data_*.bin"};
  stop_after(config, 2);

  std::filesystem::create_directory(dir / "new");
  for (const char* file : {"data_000000.bin", "data_000000.bin.json", "t.model"})
    std::filesystem::rename(dir / file, dir / "new/" + file);
  Config moved = config;
  moved.data.train = moved.data.val = {dir / "new/data_*.bin"};
  moved.data.tokenizer = dir / "new/t.model";
  stop_after(moved, 4);
  moved.data.train = {dir / "./new/data_*.bin"};
  stop_after(moved, 5);

  Config other = moved;  // another tokenizer is other data, wherever it lies
  const std::string model = read_file(moved.data.tokenizer);
  const Ran ran = run_tool("train_tokenizer", "--vocab-size 390 --threads 1 --out " + dir / "other.model" + " " +
                                                  std::string(kSourceDir) + "/README.md");
  INFO(ran.output);
  REQUIRE(ran.status == 0);
  other.data.tokenizer = dir / "other.model";
  CHECK(contains(error_of([&] { train(other, quiet()); }), "data.tokenizer"));
  std::filesystem::rename(dir / "other.model", moved.data.tokenizer);  // also under the same name
  CHECK(contains(error_of([&] { train(moved, quiet()); }), "data.tokenizer is another model"));
  write_text(moved.data.tokenizer, model);
  moved.data.seed = 9;
  CHECK(contains(error_of([&] { train(moved, quiet()); }), "data.seed"));
}

TEST_CASE("a checkpoint whose config another version wrote goes on", "[resume]") {
  const TempDir dir;
  write_shards(dir.path());
  const Config config = tiny_config(dir.path(), AttentionType::nsa, "old");
  stop_after(config, 2);
  change_saved_config(config, [](nlohmann::json& old) {
    old["train"].erase("batch_tokens");  // a field that is required now
    old["train"]["optimizer"]["learning_rate"] = old["train"]["optimizer"]["lr"];
    old["train"]["optimizer"].erase("lr");                  // renamed
    old["model"]["attention"]["flash"] = {{"version", 2}};  // removed
    old["checkpoint"]["keep"] = 1;                          // a range that is narrower now
    old["train"]["precision"] = "fp8";                      // a choice that is gone
    old.erase("threads");
  });
  stop_after(config, 4);
  const std::string log = read_file(run_dir(config) + "/run.log");
  for (const char* said : {"written by another version", "train.batch_tokens is missing", "learning_rate is no field",
                           "model.attention.flash is no field", "checkpoint.keep is 1", "train.precision is"})
    CHECK(contains(log, said));

  Config other = config;  // what can be read is still compared
  other.model.hidden_size = 32;
  change_saved_config(config, [](nlohmann::json& old) { old["model"]["depth"] = 3; });
  CHECK(contains(error_of([&] { train(other, quiet()); }), "model.hidden_size: 16 -> 32"));
}

TEST_CASE("another number format is a difference of its own kind", "[resume]") {
  const TempDir dir;
  write_shards(dir.path());
  const Config config = tiny_config(dir.path(), AttentionType::full, "format");
  stop_after(config, 2);
  change_saved_config(config, [](nlohmann::json& old) { old["train"]["precision"] = "bf16"; });
  RunOptions other = quiet();
  other.force_schedule = other.force_data = true;
  const std::string said = error_of([&] { train(config, other); });
  CHECK(contains(said, "train.precision: bf16 -> f32"));
  CHECK(contains(said, "--force-precision"));
  RunOptions force = quiet();
  force.force_precision = true;
  CHECK(train(config, force) == Exit::ok);
  CHECK(contains(read_file(run_dir(config) + "/run.log"), "--force-precision: going on although train.precision"));
}

TEST_CASE("fields that the model does not use do not make it another model", "[resume]") {
  const TempDir dir;
  write_shards(dir.path());
  Config full = tiny_config(dir.path(), AttentionType::full, "full"),
         nsa = tiny_config(dir.path(), AttentionType::nsa, "nsa");
  stop_after(full, 2);
  stop_after(nsa, 2);
  full.model.attention.select_count = nsa.model.attention.select_count = 5;
  stop_after(full, 3);
  CHECK(contains(error_of([&] { train(nsa, quiet()); }), "model.attention.select_count: 4 -> 5"));
}

TEST_CASE("a loss that stays where it is unlike the window is skipped for a while, not for ever", "[resume]") {
  const TempDir dir;
  write_shards(dir.path());
  Config config = tiny_config(dir.path(), AttentionType::full, "outliers");
  config.train.skip_outlier_z = 8;
  stop_after(config, 2);
  const auto jump = [](TrainState& state) { state.recent_losses = state.recent_norms = {0.01, 0.0101, 0.01, 0.0101}; };
  change_state(config, jump);
  CHECK(train(config, quiet()) == Exit::ok);
  std::vector<std::string> warnings;
  const TrainState end = load_state(find_checkpoint(run_dir(config), warnings));
  CHECK(end.step == 12);
  CHECK(end.skipped >= 1);
  CHECK(end.skipped <= 4);  // the window holds four
  CHECK(end.optimizer_steps + end.skipped == 12);

  // every skip counts
  Config strict = tiny_config(dir.path(), AttentionType::full, "strict");
  strict.train.skip_outlier_z = 8, strict.train.max_skipped = 1;
  stop_after(strict, 2);
  change_state(strict, jump);
  CHECK(!run_diverged(strict));
  const std::string said = error_of([&] { train(strict, quiet()); });
  CHECK(contains(said, "skipped"));
  CHECK(run_diverged(strict));
  CHECK(!run_finished(strict));
}
