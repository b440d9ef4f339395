// nsa watch and nsa report --term on terminals of all kinds, and with a reader that goes away.
#include <sys/wait.h>

#include <cstdio>

#include "cli/workplace.h"
#include "report/synthetic.h"

namespace {

Ran shell(const std::string& command) {
  FILE* pipe = popen(("bash -c '" + command + "' 2>&1").c_str(), "r");
  REQUIRE(pipe != nullptr);
  Ran ran;
  char buffer[4096];
  for (std::size_t n = 0; (n = fread(buffer, 1, sizeof buffer, pipe)) > 0;) ran.output.append(buffer, n);
  const int status = pclose(pipe);
  ran.status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  return ran;
}

std::size_t count(const std::string& text, const std::string& what) {
  std::size_t n = 0;
  for (std::size_t at = 0; (at = text.find(what, at)) != std::string::npos; ++at) ++n;
  return n;
}

struct TwoRuns {
  TempDir dir;
  std::string nsa = std::string(kBinaryDir) + "/nsa ", done, growing;
  TwoRuns() {
    test::Synthetic s{"done-seed1", "nsa"};
    s.steps = s.planned = 50;
    done = test::write_run(dir.path(), s);
    s.name = "growing-seed1";
    s.planned = 5000;
    growing = test::write_run(dir.path(), s);
  }
  /// On a terminal of its own, for at most a second.
  Ran on_terminal(const std::string& environment, const std::string& arguments) const {
    return shell(environment + " timeout 10 script -qec \"timeout 1 " + nsa + arguments + "\" /dev/null </dev/null");
  }
};

}  // namespace

TEST_CASE("watch redraws where the terminal can, and only there", "[process]") {
  const TwoRuns runs;
  const std::string watch = "watch " + runs.growing + " --every 0.2";
  const Ran able = runs.on_terminal("NO_COLOR= TERM=xterm", watch);
  INFO(able.output);
  CHECK(count(able.output, "\x1b[H") > 1);
  for (const char* environment : {"NO_COLOR=1 TERM=xterm", "NO_COLOR= TERM=dumb", "NO_COLOR= TERM="}) {
    const Ran plain = runs.on_terminal(environment, watch);
    INFO(environment << "\n" << plain.output);
    CHECK(count(plain.output, "\x1b") == 0);
    CHECK(count(plain.output, "step 50 of 5,000") == 1);  // nothing new, so nothing said again
  }
  const Ran done = runs.on_terminal("NO_COLOR= TERM=xterm", "watch " + runs.done);
  CHECK(count(done.output, "\x1b") == 0);  // there is nothing to follow, and the screen stays as it is
  CHECK(contains(done.output, "finished"));
}

TEST_CASE("a reader that goes away has seen enough: watch and report end quietly with 0", "[process]") {
  const TwoRuns runs;
  for (const std::string& verb : {"watch " + runs.growing, "report --term " + runs.done + " " + runs.growing}) {
    const Ran ran = shell("set -o pipefail; " + runs.nsa + verb + " | true");
    INFO(verb << "\n" << ran.output);
    CHECK(ran.status == 0);
    CHECK(ran.output.empty());
  }
  const Ran full = shell(runs.nsa + "watch " + runs.growing + " >/dev/full");
  CHECK(full.status == 1);
  CHECK(contains(full.output, "standard output"));
}

TEST_CASE("report reads with as many threads as it is told, and says the same", "[process]") {
  const TwoRuns runs;
  const std::string verb = "report --term " + runs.done + " " + runs.growing;
  CHECK(run_tool("nsa", verb + " --threads 1").output == run_tool("nsa", verb + " --threads 3").output);
  CHECK(run_tool("nsa", verb + " --threads -1").status == 2);
}
