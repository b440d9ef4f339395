// Signals ask, and are given back.
#include <sys/wait.h>
#include <unistd.h>

#include "catch.h"
#include "core/signals.h"

using namespace nsa;

TEST_CASE("SIGTERM and SIGINT set the flag; the handlers from before come back") {
  struct sigaction before, after;
  sigaction(SIGTERM, nullptr, &before);
  {
    StopSignals stop;
    CHECK_FALSE(stop.requested());
    CHECK(std::string(stop.name()).empty());
    raise(SIGTERM);
    CHECK(stop.requested());
    CHECK(std::string(stop.name()) == "SIGTERM");
    raise(SIGTERM);  // schedulers repeat it: still only asked
    CHECK(stop.requested());
  }
  sigaction(SIGTERM, nullptr, &after);
  CHECK(before.sa_handler == after.sa_handler);
  StopSignals again;
  CHECK_FALSE(again.requested());
}

TEST_CASE("the second SIGINT kills") {
  const pid_t child = fork();
  if (child == 0) {
    signal(SIGINT, SIG_DFL);
    StopSignals stop;
    raise(SIGINT);
    if (!stop.requested()) _exit(1);
    raise(SIGINT);
    _exit(2);
  }
  int status = 0;
  waitpid(child, &status, 0);
  CHECK(WIFSIGNALED(status));
  CHECK(WTERMSIG(status) == SIGINT);
}
