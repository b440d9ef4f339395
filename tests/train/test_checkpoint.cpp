#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <csignal>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <limits>

#include "catch.h"
#include "core/file.h"
#include "core/json.h"
#include "error_of.h"
#include "temp_dir.h"
#include "train/checkpoint.h"
#include "train/run_lock.h"

using namespace nsa;
namespace fs = std::filesystem;

namespace {

/// Two weights and two moments whose every element is `v`.
struct Content {
  std::vector<float> data;
  std::vector<NamedTensor> weights, optimizer;
  explicit Content(float v) : data(1000, v) {
    weights = {{"model.a.weight", {data.data(), DType::f32, {20, 10}}},
               {"model.b.weight", {data.data() + 200, DType::f32, {300}}}};
    optimizer = {{"m.model.a.weight", {data.data() + 500, DType::f32, {20, 10}}},
                 {"v.model.a.weight", {data.data() + 700, DType::f32, {300}}}};
  }
};

TrainState state_at(std::int64_t step) {
  TrainState s;
  s.step = step;
  s.tokens = step * 1000;
  return s;
}

void save(const std::string& run, std::int64_t step, std::int64_t keep = 2, float v = 1) {
  const Content content(v);
  save_checkpoint(run, state_at(step), content.weights, content.optimizer, keep);
}

std::vector<std::string> names_in(const std::string& run) {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(run + "/checkpoints"))
    names.push_back(entry.path().filename().string());
  std::sort(names.begin(), names.end());
  return names;
}

/// The step found; the warnings in `said`, one string.
std::int64_t found(const std::string& run, std::string* said = nullptr) {
  std::vector<std::string> warnings;
  const CheckpointFile checkpoint = find_checkpoint(run, warnings);
  if (said) {
    said->clear();
    for (const auto& w : warnings) *said += w + "\n";
  } else {
    CHECK(warnings.empty());
  }
  return checkpoint.path.empty() ? -1 : checkpoint.step;
}

}  // namespace

TEST_CASE("checkpoint: what is saved is loaded, to the bit") {
  TempDir run;
  TrainState s;
  s.step = 500;
  s.tokens = 9007199254740993;
  s.position = 12345678901;
  s.optimizer_steps = 499;
  s.skipped = 1;
  s.skipped_in_row = 1;
  s.seconds = 1e-300;
  s.recent_losses = {1.0 / 3,
                     5e-324,
                     -0.0,
                     std::numeric_limits<double>::quiet_NaN(),
                     std::numeric_limits<double>::infinity(),
                     -std::numeric_limits<double>::infinity(),
                     2};
  s.recent_norms = {std::numeric_limits<double>::max()};
  s.data_fingerprint = 0xffffffffffffffffull;
  s.config = "{ \"a\": \"\xc3\xa9\n\" }";
  Content content(0);
  for (std::size_t i = 0; i < content.data.size(); ++i) content.data[i] = static_cast<float>(i) * 0.1f;
  save_checkpoint(run.path(), s, content.weights, content.optimizer, 2);

  std::vector<std::string> warnings;
  const CheckpointFile c = find_checkpoint(run.path(), warnings);
  REQUIRE(c.step == 500);
  CHECK(warnings.empty());
  CHECK(c.path == run.path() + "/checkpoints/step_00000500");
  const TrainState t = load_state(c);
  CHECK(std::tie(t.step, t.tokens, t.position, t.optimizer_steps, t.skipped, t.skipped_in_row, t.seconds,
                 t.data_fingerprint, t.config, t.recent_norms) ==
        std::tie(s.step, s.tokens, s.position, s.optimizer_steps, s.skipped, s.skipped_in_row, s.seconds,
                 s.data_fingerprint, s.config, s.recent_norms));
  REQUIRE(t.recent_losses.size() == s.recent_losses.size());
  CHECK(std::isnan(t.recent_losses[3]));
  CHECK(std::signbit(t.recent_losses[2]));
  for (std::size_t i : {0, 1, 2, 4, 5, 6}) CHECK(t.recent_losses[i] == s.recent_losses[i]);

  Content back(-1);
  load_tensors(model_file(c), back.weights);
  load_tensors(optimizer_file(c), back.optimizer);
  CHECK(back.data == content.data);
  CHECK(SafetensorsReader(model_file(c)).metadata().at("format") == "pt");
  const auto manifest = nlohmann::json::parse(read_file(c.path + "/manifest.json"));
  CHECK(manifest["step"] == 500);
  CHECK(manifest["files"].size() == 3);
  CHECK(manifest["files"]["model.safetensors"]["bytes"] == fs::file_size(model_file(c)));
}

TEST_CASE("checkpoint: none yet") {
  TempDir run;
  CHECK(found(run.path()) == -1);
  fs::create_directories(run.path() + "/checkpoints/something_else");
  std::ofstream(run.path() + "/checkpoints/step_12") << "not ours";
  CHECK(found(run.path()) == -1);
  save(run.path(), 7);
  CHECK(found(run.path()) == 7);
  CHECK(names_in(run.path()) == std::vector<std::string>{"something_else", "step_00000007", "step_12"});
}

TEST_CASE("checkpoint: the newest `keep` stay, leftovers of dead runs go") {
  TempDir run;
  for (std::int64_t step : {10, 20, 30, 40}) save(run.path(), step, 3);
  CHECK(names_in(run.path()) == std::vector<std::string>{"step_00000020", "step_00000030", "step_00000040"});
  fs::create_directories(run.path() + "/checkpoints/step_00000050.tmp-99");
  std::ofstream(run.path() + "/checkpoints/step_00000050.tmp-99/model.safetensors") << "half";
  CHECK(found(run.path()) == 40);
  save(run.path(), 123456789, 2);
  CHECK(names_in(run.path()) == std::vector<std::string>{"step_00000040", "step_123456789"});
  CHECK(found(run.path()) == 123456789);
}

TEST_CASE("checkpoint: the same step again replaces it; an interrupted replacement is found and finished") {
  TempDir run;
  save(run.path(), 10);
  save(run.path(), 20, 2, 1);
  save(run.path(), 20, 2, 5);
  CHECK(names_in(run.path()) == std::vector<std::string>{"step_00000010", "step_00000020"});
  std::vector<std::string> warnings;
  Content back(-1);
  load_tensors(model_file(find_checkpoint(run.path(), warnings)), back.weights);
  CHECK(back.data[0] == 5);

  const std::string in_place = run.path() + "/checkpoints/step_00000020";
  fs::rename(in_place, in_place + ".old-77");  // killed between the two renames
  CHECK(found(run.path()) == 20);
  save(run.path(), 30);
  CHECK(names_in(run.path()) == std::vector<std::string>{"step_00000020", "step_00000030"});
  fs::copy(in_place, in_place + ".old-77", fs::copy_options::recursive);  // killed right after them
  CHECK(found(run.path()) == 30);
  save(run.path(), 30);
  CHECK(names_in(run.path()) == std::vector<std::string>{"step_00000020", "step_00000030"});
}

TEST_CASE("checkpoint: every kind of damage to every file is noticed, said, and survived") {
  const std::vector<std::string> files{"model.safetensors", "optimizer-0000-of-0001.safetensors", "state.json",
                                       "manifest.json"};
  TempDir healthy;
  for (std::int64_t step : {10, 20}) save(healthy.path(), step);
  for (const std::string& file : files) {
    for (const char* damage : {"flip", "truncate", "grow", "delete", "empty", "folder"}) {
      TempDir run;
      fs::copy(healthy.path(), run.path(), fs::copy_options::recursive);  // saving waits for the disk
      const std::string path = run.path() + "/checkpoints/step_00000020/" + file;
      std::string content = read_file(path);
      const std::size_t size = content.size();
      if (!std::strcmp(damage, "flip"))
        content[file == "manifest.json" ? content.find("xxh3\": \"") + 10 : size / 2] ^= 1;
      if (!std::strcmp(damage, "truncate")) content.resize(size - 3);
      if (!std::strcmp(damage, "grow")) content += "}";
      if (!std::strcmp(damage, "empty")) content.clear();
      fs::remove(path);
      if (!std::strcmp(damage, "folder")) {
        fs::create_directory(path);
      } else if (std::strcmp(damage, "delete") != 0) {
        std::ofstream(path, std::ios::binary) << content;
      }
      std::string said;
      INFO(file << " " << damage);
      CHECK(found(run.path(), &said) == 10);
      INFO(said);
      CHECK(contains(said, "checkpoints/step_00000020 is passed over: "));
      CHECK((file == "manifest.json" || contains(said, file)));
      if (std::strcmp(damage, "delete") != 0) continue;
      save(run.path(), 20);  // training goes on and comes to the same step
      CHECK(found(run.path()) == 20);
    }
  }
}

TEST_CASE("checkpoint: foreign manifests") {
  TempDir run;
  save(run.path(), 10);
  const std::string folder = run.path() + "/checkpoints/step_00000010", manifest = folder + "/manifest.json";
  const std::string good = read_file(manifest);
  for (const char* bad : {"[]", "{}", "5", "{\"step\": 10, \"files\": []}", "{\"step\": 10, \"files\": {}}",
                          "{\"step\": \"10\", \"files\": {}}",
                          "{\"step\": 10, \"files\": {\"model.safetensors\": 1, "
                          "\"optimizer-0000-of-0001.safetensors\": 1, \"state.json\": 1}}"}) {
    std::ofstream(manifest) << bad;
    std::string said;
    CHECK(found(run.path(), &said) == -1);
    CHECK(contains(said, "manifest.json"));
  }
  std::ofstream(manifest) << good;
  CHECK(found(run.path()) == 10);
  fs::rename(folder, run.path() + "/checkpoints/step_00000011");
  std::string said;
  CHECK(found(run.path(), &said) == -1);
  CHECK(contains(said, "manifest.json is of step 10"));
}

TEST_CASE("checkpoint: damaged ones do not push good ones out") {
  TempDir run;
  for (std::int64_t step : {10, 20, 30}) save(run.path(), step, 3);
  fs::remove(run.path() + "/checkpoints/step_00000020/state.json");
  fs::remove(run.path() + "/checkpoints/step_00000030/state.json");
  save(run.path(), 25, 2);  // went on from 10
  std::string said;
  CHECK(found(run.path(), &said) == 25);
  fs::remove_all(run.path() + "/checkpoints/step_00000025");
  CHECK(found(run.path(), &said) == 10);
}

TEST_CASE("checkpoint: a state written by something else") {
  TempDir run;
  save(run.path(), 10);
  std::vector<std::string> warnings;
  const CheckpointFile c = find_checkpoint(run.path(), warnings);
  auto state = nlohmann::json::parse(read_file(c.path + "/state.json"));
  const auto error_with = [&](const char* key, const nlohmann::json& value) {
    auto changed = state;
    changed[key] = value;
    if (value == "absent") changed.erase(key);
    std::ofstream(c.path + "/state.json") << changed.dump();
    return error_of([&] { load_state(c); });
  };
  CHECK(contains(error_with("format", 2), "format"));
  CHECK(contains(error_with("tokens", "absent"), "state.json: \"tokens\" is missing or not an integer"));
  CHECK(contains(error_with("tokens", 1.5), "\"tokens\""));
  CHECK(contains(error_with("seconds", "x"), "\"seconds\" is missing or not a number"));
  CHECK(contains(error_with("recent_losses", 1), "\"recent_losses\" is missing or not a list"));
  CHECK(contains(error_with("data_fingerprint", -1), "\"data_fingerprint\""));
  CHECK(contains(error_with("config", nlohmann::json::object()), "\"config\" is missing or not a string"));
  CHECK(error_with("seconds", 1) == "");
}

TEST_CASE("load_tensors: refuses another model and then changes nothing") {
  TempDir run;
  save(run.path(), 10, 2, 3);
  std::vector<std::string> warnings;
  const std::string file = model_file(find_checkpoint(run.path(), warnings));
  Content into(-1);
  std::vector<NamedTensor> targets = into.weights;
  targets.pop_back();
  CHECK(contains(error_of([&] { load_tensors(file, targets); }),
                 file + ": tensor \"model.b.weight\" has no place in this model"));
  targets = into.weights;
  targets[1].name = "model.c.weight";
  CHECK(contains(error_of([&] { load_tensors(file, targets); }), "has no tensor \"model.c.weight\"; did you mean"));
  targets = into.weights;
  targets[1].tensor.shape = {30, 10};
  CHECK(contains(error_of([&] { load_tensors(file, targets); }), "is f32 (300), expected f32 (30, 10)"));
  targets = into.weights;
  targets[1].tensor.dtype = DType::i32;
  CHECK(contains(error_of([&] { load_tensors(file, targets); }), "expected i32 (300)"));
  CHECK(into.data == std::vector<float>(1000, -1));
  load_tensors(file, into.weights);
  CHECK(into.data[499] == 3);
  CHECK(into.data[500] == -1);
}

TEST_CASE("RunLock: one at a time; a killed holder frees it") {
  TempDir dir;
  const std::string run = dir.path() + "/new/run";
  {
    RunLock lock(run);
    CHECK(contains(error_of([&] { RunLock second(run); }),
                   "the run folder " + run + " is in use by process " + std::to_string(getpid()) + " on "));
  }
  { RunLock again(run); }
  int ready[2];
  REQUIRE(pipe(ready) == 0);
  const pid_t child = fork();
  if (child == 0) {
    RunLock lock(run);
    if (write(ready[1], "x", 1) == 1) pause();
    _exit(1);
  }
  char byte = 0;
  REQUIRE(read(ready[0], &byte, 1) == 1);
  CHECK(contains(error_of([&] { RunLock second(run); }), "in use by process " + std::to_string(child)));
  kill(child, SIGKILL);
  waitpid(child, nullptr, 0);
  CHECK_NOTHROW(RunLock(run));
  close(ready[0]);
  close(ready[1]);
}
