// Nothing is lost: signals of terminals and schedulers, checkpoints that are gone or damaged, records of earlier
// starts.
#include <algorithm>
#include <sstream>

#include "cli/workplace.h"

using namespace nsa;
namespace fs = std::filesystem;

namespace {

/// Every line of the text is in one of the run's metrics files.
bool records_kept(const std::string& run, const std::string& text) {
  std::string all;
  for (const auto& entry : fs::directory_iterator(run))
    if (contains(entry.path().filename().string(), "metrics")) all += read_file(entry.path());
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);)
    if (!contains(all, line + "\n")) return false;
  return true;
}

void damage(const std::string& file) {
  std::string bytes = read_file(file);
  bytes[bytes.size() / 2] = static_cast<char>(bytes[bytes.size() / 2] ^ 1);
  write_text(file, bytes);
}

std::vector<std::string> folders_in(const std::string& path) {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(path)) names.push_back(entry.path().filename());
  std::sort(names.begin(), names.end());
  return names;
}

}  // namespace

TEST_CASE("SIGHUP and SIGUSR2 finish the step, save and exit 0", "[loss]") {
  const Workplace place(100000);
  for (int signal : {SIGHUP, SIGUSR2}) {
    const std::string name = signal == SIGHUP ? "SIGHUP" : "SIGUSR2", run = place.dir / "runs/" + name;
    CHECK(run_and_signal({"train", place.config, "log.name=" + name}, signal, 1500) == 0);
    CHECK(contains(read_file(run + "/run.log"), name + ": stopped after step"));
    CHECK(!folders_in(run + "/checkpoints").empty());
  }
}

TEST_CASE("checkpoints that cannot be used: train refuses, names each and its fault, and changes nothing", "[loss]") {
  const Workplace place;
  REQUIRE(place.train().status == 0);
  const std::string run = place.dir / "runs/tiny", checkpoints = run + "/checkpoints",
                    metrics = read_file(run + "/metrics.jsonl");
  const auto names = folders_in(checkpoints);
  REQUIRE(names.size() >= 2);
  const auto refuses = [&](const std::string& part) {
    const Ran ran = place.train();
    INFO(ran.output);
    CHECK(ran.status == 1);
    CHECK(contains(ran.output, part));
    CHECK(contains(ran.output, "nothing was changed"));
    CHECK(contains(ran.output, "--fresh log.name=NAME"));
    CHECK(read_file(run + "/metrics.jsonl") == metrics);
    return ran.output;
  };
  fs::rename(checkpoints, run + "/away");
  refuses("tells of a checkpoint of step 40, but " + checkpoints + " holds none");
  fs::create_directory(checkpoints);  // the empty folder of a disk that is not mounted
  refuses("tells of a checkpoint of step 40");
  fs::remove(checkpoints);
  fs::create_symlink("/nowhere/at/all", checkpoints);
  CHECK(contains(place.train().output, "/nowhere/at/all, which is not there"));
  CHECK(read_file(run + "/metrics.jsonl") == metrics);
  fs::remove(checkpoints);
  fs::rename(run + "/away", checkpoints);
  CHECK(place.train().status == 0);  // back again, all is well
  const std::string whole = read_file(run + "/metrics.jsonl");

  for (const std::string& name : names) damage(checkpoints + "/" + name + "/model.safetensors");
  const Ran ran = place.train();
  CHECK(ran.status == 1);
  for (const std::string& name : names) CHECK(contains(ran.output, name + " is passed over: model.safetensors"));
  CHECK(folders_in(checkpoints) == names);
  CHECK(read_file(run + "/metrics.jsonl") == whole);
  CHECK(place.train("--fresh log.name=again").status == 0);  // what the sentence says
}

TEST_CASE("what a resumed run takes out of metrics.jsonl is kept beside it", "[loss]") {
  const Workplace place;
  REQUIRE(place.train().status == 0);
  const std::string run = place.dir / "runs/tiny", metrics = read_file(run + "/metrics.jsonl");
  damage(run + "/checkpoints/step_00000040/model.safetensors");
  CHECK(place.train().status == 0);  // from the one before
  CHECK(records_kept(run, metrics));
  CHECK(!contains(read_file(run + "/metrics.dropped.jsonl"), "\"type\":\"step\",\"step\":3,"));
  CHECK(contains(read_file(run + "/metrics.dropped.jsonl"), "\"type\":\"step\",\"step\":40,"));
}

TEST_CASE("a run killed before its first checkpoint begins again and keeps the old records", "[loss]") {
  const Workplace place(100000);
  std::string metrics;
  for (int ms = 100; ms <= 2000 && !contains(metrics, "\"type\":\"step\""); ms += 100) {
    run_and_signal({"train", place.config, "checkpoint.every=0", "eval.every=0", "eval.sample_every=0"}, SIGKILL, ms);
    if (fs::exists(place.dir / "runs/tiny/metrics.jsonl")) metrics = read_file(place.dir / "runs/tiny/metrics.jsonl");
  }
  REQUIRE(contains(metrics, "\"type\":\"step\""));
  CHECK(run_and_signal({"train", place.config, "checkpoint.every=0", "eval.every=0", "eval.sample_every=0"}, SIGTERM,
                       1500) == 0);
  CHECK(records_kept(place.dir / "runs/tiny", metrics));
}
