// The program as a user meets it: exit codes, one-sentence errors, signals, kill -9 at any moment, resuming,
// generating.
#include "cli/workplace.h"

using namespace nsa;

namespace {

bool one_sentence(const std::string& output, const std::string& part) {
  return output.rfind("nsa: ", 0) == 0 && contains(output, part) && !contains(output, "terminate called") &&
         !contains(output, "#0");
}

}  // namespace

TEST_CASE("killed at any moment, a run ends with the bits of one that was left alone", "[process]") {
  const Workplace place;
  REQUIRE(place.train("log.name=whole").status == 0);
  int kills = 0;
  for (int ms = 20; ms <= 400; ms += 19)
    kills += run_and_signal({"train", place.config, "log.name=killed"}, SIGKILL, ms) == 128 + SIGKILL;
  CHECK(kills > 0);
  CHECK(place.train("log.name=killed").status == 0);
  CHECK(place.weights("whole") == place.weights("killed"));
}

TEST_CASE("SIGTERM and SIGINT finish the step, save and exit 0", "[process]") {
  const Workplace place(100000);
  for (int signal : {SIGTERM, SIGINT}) {
    const std::string name = signal == SIGTERM ? "term" : "int";
    CHECK(run_and_signal({"train", place.config, "log.name=" + name}, signal, 1500) == 0);
    const std::string log = read_file(place.dir / "runs/" + name + "/run.log");
    CHECK(contains(log, "stopped after step"));
    CHECK(std::filesystem::exists(place.dir / "runs/" + name + "/checkpoints"));
  }
}

TEST_CASE("mistakes are one sentence and an exit code", "[process]") {
  const Workplace place;
  struct Case {
    std::string arguments, says;
    int status;
  };
  const std::string c = place.config;
  for (const Case& mistake : {Case{"trian " + c, "train", 2}, Case{"train " + c + " trian.steps=4", "train.steps", 2},
                              Case{"train " + c + " train.steps=many", "train.steps", 2},
                              Case{"train " + place.dir.path() + "/none.json", "none.json", 2},
                              Case{"train " + c + " data.train=/nowhere/*.bin", "/nowhere/*.bin", 1},
                              Case{"train " + c + " train.batch_tokens=300", "train.batch_tokens", 2},
                              Case{"train " + c + " model.vocab_size=100", "vocab", 1},
                              Case{"train " + c + " model.attention.compress_stride=3", "compress_stride", 2},
                              Case{"train " + c + " log.dir=/proc/nowhere", "/proc/nowhere", 1},
                              Case{"generate " + place.dir.path(), "no checkpoint", 1}, Case{"verify " + c, c, 1},
                              Case{"plan", "config", 2}}) {
    const Ran ran = run_tool("nsa", mistake.arguments);
    INFO("nsa " << mistake.arguments << "\n" << ran.output);
    CHECK((ran.status == mistake.status || (mistake.status == 1 && ran.status == 2)));
    CHECK(one_sentence(ran.output, mistake.says));
  }
  CHECK(!std::filesystem::exists(place.dir / "runs"));  // nothing half-made before the first valid command
}

TEST_CASE("a trained run generates the same text for the same seed, and plan prints its bytes", "[process]") {
  const Workplace place;
  REQUIRE(place.train().status == 0);
  const std::string run = place.dir / "runs/tiny";
  const Ran one = run_tool("nsa", "generate " + run + " --prompt 'The quick' --tokens 40 --seed 3"),
            two = run_tool("nsa", "generate " + run + " --prompt 'The quick' --tokens 40 --seed 3");
  CHECK(one.status == 0);
  CHECK(one.output == two.output);
  CHECK(one.output.rfind("The quick", 0) == 0);
  const Ran greedy = run_tool(
      "nsa", "generate " + run + " --tokens 80 --temperature 0 --top-k 5 --top-p 0.9");  // longer than the context
  CHECK(greedy.status == 0);
  const Ran plan = run_tool("nsa", "plan " + place.config);
  CHECK(plan.status == 0);
  CHECK(contains(plan.output, "FLOPs per token"));
}

TEST_CASE("help and version", "[process]") {
  CHECK(run_tool("nsa", "--help").status == 0);
  CHECK(contains(run_tool("nsa", "--version").output, "nsa"));
  for (const char* verb : {"train", "plan", "generate", "verify", "bench", "report", "watch", "config", "compare"}) {
    const Ran ran = run_tool("nsa", std::string(verb) + " --help");
    INFO(verb << ": " << ran.output);
    CHECK(ran.status == 0);
    CHECK(contains(ran.output, std::string("nsa ") + verb));
  }
}
