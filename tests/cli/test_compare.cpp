// nsa compare as a user meets it: killed and started again, refusals, the same start for every tensor that two models
// share.
#include "cli/workplace.h"
#include "core/safetensors.h"

namespace {

std::string metrics_of(const Workplace& place, const std::string& out, const std::string& run) {
  return read_file(place.dir / out + "/runs/" + run + "/metrics.jsonl");
}

// The records a reader of the curves sees: steps and validations, without what a clock measured.
std::vector<std::string> results_in(const std::string& metrics) {
  std::vector<std::string> records;
  for (std::size_t begin = 0, end; (end = metrics.find('\n', begin)) != std::string::npos; begin = end + 1) {
    std::string line = metrics.substr(begin, end - begin);
    if (line.rfind("{\"type\":\"val\"", 0) == 0) records.push_back(line);
    if (line.rfind("{\"type\":\"step\"", 0) == 0) records.push_back(line.substr(0, line.find("\"ms\"")));
  }
  return records;
}

std::size_t launches(const std::string& metrics) {
  std::size_t count = 0;
  for (std::size_t at = 0; (at = metrics.find("{\"type\":\"run\"", at)) != std::string::npos; ++at) ++count;
  return count;
}

const std::vector<std::string> kRuns{"tiny_full_seed1", "tiny_seed1", "tiny_full_seed2", "tiny_seed2"};

}  // namespace

TEST_CASE(
    "a comparison that is killed again and again ends with the records of one left alone and trains no finished run "
    "twice",
    "[process]") {
  const Workplace place;
  const std::string command = "compare " + place.full + " " + place.config + " --seeds 1,2 --out " + place.dir.path();
  const Ran whole = run_tool("nsa", command + "/whole");
  INFO(whole.output);
  REQUIRE(whole.status == 0);

  const std::vector<std::string> killed{"compare", place.full, place.config,        "--seeds",
                                        "1,2",     "--out",    place.dir / "killed"};
  int kills = 0;
  for (int ms = 150; ms <= 1500; ms += 150) kills += run_and_signal(killed, SIGKILL, ms) == 128 + SIGKILL;
  CHECK(kills > 0);
  CHECK(run_and_signal(killed, SIGTERM, 300) == 0);
  const Ran rest = run_tool("nsa", command + "/killed");
  INFO(rest.output);
  REQUIRE(rest.status == 0);
  CHECK(contains(rest.output, "tiny_full"));
  for (const std::string& run : kRuns) {
    INFO(run);
    CHECK(results_in(metrics_of(place, "whole", run)).size() == 42);  // 40 steps, validations after 20 and 40
    CHECK(results_in(metrics_of(place, "whole", run)) == results_in(metrics_of(place, "killed", run)));
    CHECK(launches(metrics_of(place, "whole", run)) == 1);
  }
  for (const char* file : {"report.html", "curves.svg", "curves.tsv"})
    CHECK(std::filesystem::exists(place.dir / "killed/" + file));

  // once more: there is nothing left to train, the page is written again
  std::filesystem::remove(place.dir / "killed/report.html");
  std::vector<std::string> before;
  for (const std::string& run : kRuns) before.push_back(metrics_of(place, "killed", run));
  CHECK(run_tool("nsa", command + "/killed").status == 0);
  for (std::size_t i = 0; i < kRuns.size(); ++i) CHECK(metrics_of(place, "killed", kRuns[i]) == before[i]);
  CHECK(std::filesystem::exists(place.dir / "killed/report.html"));
}

TEST_CASE("a run that diverges is a result of the comparison: the others are trained, and it is not tried for ever",
          "[process]") {
  const Workplace place(30);
  // one step that is worse than the two before it is one too many
  const std::string wild = place.dir / "wild.json";
  std::string text = read_file(place.config);
  const std::string was = "\"micro_batch\": 2";
  text.replace(text.find(was), was.size(),
               was + ", \"skip_outlier_z\": 1e-9, \"outlier_window\": 2, \"max_skipped\": 1");
  write_text(wild, text);
  const std::string command =
      "compare " + wild + " " + place.full + " --seeds 1,2 --allow-differences --out " + place.dir.path() + "/cmp";
  const Ran ran = run_tool("nsa", command);
  INFO(ran.output);
  CHECK(ran.status == 0);
  CHECK(contains(ran.output, "diverged"));
  CHECK(contains(ran.output, "wild_seed1, wild_seed2"));
  for (const char* run : {"tiny_full_seed1", "tiny_full_seed2"})
    CHECK(results_in(metrics_of(place, "cmp", run)).size() >= 30);
  CHECK(std::filesystem::exists(place.dir / "cmp/report.html"));

  const Ran again = run_tool("nsa", command);
  CHECK(again.status == 0);
  CHECK(contains(again.output, "wild_seed1, wild_seed2"));
  for (const char* run : {"wild_seed1", "wild_seed2", "tiny_full_seed1", "tiny_full_seed2"})
    CHECK(launches(metrics_of(place, "cmp", run)) == 1);
}

TEST_CASE("configs that differ in more than attention are refused with the difference named, or marked", "[process]") {
  const Workplace place(3);
  place.write_config(place.dir / "longer.json", 4, "full", 0);
  const std::string out = " --out " + place.dir.path() + "/out",
                    pair = place.full + " " + place.dir.path() + "/longer.json";
  const Ran refused = run_tool("nsa", "compare " + pair + out);
  INFO(refused.output);
  CHECK(refused.status == 2);
  CHECK(contains(refused.output, "train.steps"));
  CHECK(contains(refused.output, "--allow-differences"));
  CHECK(!std::filesystem::exists(place.dir / "out"));

  const Ran marked = run_tool("nsa", "compare --allow-differences " + pair + out);
  INFO(marked.output);
  REQUIRE(marked.status == 0);
  CHECK(contains(marked.output, "train.steps"));
  CHECK(contains(read_file(place.dir / "out/report.html"), "train.steps"));

  const Ran twice = run_tool("nsa", "compare " + place.full + " " + place.config + " --seeds 3,3" + out);
  CHECK(twice.status == 2);
  CHECK(contains(twice.output, "--seeds"));
  const Ran alone = run_tool("nsa", "compare " + place.full + " " + place.full + out);
  CHECK(alone.status == 2);
  CHECK(contains(alone.output, "tiny_full"));
}

TEST_CASE("compared models start from the same values in every tensor they share, and another seed from others",
          "[process]") {
  const Workplace place(1);
  const std::string still = " train.optimizer.lr=1e-30 checkpoint.every=1 log.name=";  // one step that moves nothing
  for (const char* run : {"train.seed=1", "train.seed=2"}) {
    REQUIRE(run_tool("nsa", "train " + place.full + " " + run + still + "full" + run).status == 0);
    REQUIRE(run_tool("nsa", "train " + place.config + " " + run + still + "nsa" + run).status == 0);
  }
  const auto file = [&](const std::string& name) {
    return place.dir / "runs/" + name + "/checkpoints/step_00000001/model.safetensors";
  };
  const SafetensorsReader full(file("fulltrain.seed=1")), nsa(file("nsatrain.seed=1")), other(file("nsatrain.seed=2"));
  int shared = 0, drawn = 0;
  for (const auto& [name, a] : full.tensors()) {
    const auto b = nsa.tensors().find(name);
    if (b == nsa.tensors().end() || !(a.shape == b->second.shape)) continue;
    const auto bytes = static_cast<std::size_t>(a.numel()) * sizeof(float);
    ++shared;
    INFO(name);
    CHECK(std::memcmp(a.f32(), b->second.f32(), bytes) == 0);
    drawn += std::memcmp(a.f32(), other.tensors().at(name).f32(), bytes) != 0;
  }
  CHECK(shared >= 9);  // embedding, head, norms, q, o and the feed-forward at least
  CHECK(drawn >= 6);
}
