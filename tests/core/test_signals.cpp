// Signals ask, and are given back.
#include "core/signals.h"

#include <sys/wait.h>
#include <unistd.h>

#include "catch.h"

using namespace nsa;

TEST_CASE("signals that stop set the flag; the handlers from before come back") {
  struct Case {
    int number;
    const char* name;
  };
  for (const Case& c : {Case{SIGTERM, "SIGTERM"}, Case{SIGINT, "SIGINT"}, Case{SIGHUP, "SIGHUP"},
                        Case{SIGUSR2, "SIGUSR2"}, Case{SIGXCPU, "SIGXCPU"}}) {
    struct sigaction before, after;
    sigaction(c.number, nullptr, &before);
    {
      StopSignals stop;
      CHECK_FALSE(stop.requested());
      CHECK(std::string(stop.name()).empty());
      raise(c.number);
      CHECK(stop.requested());
      CHECK(std::string(stop.name()) == c.name);
      if (c.number != SIGINT) raise(c.number);  // schedulers repeat it: still only asked
      CHECK(stop.requested());
      CHECK_FALSE(stop.take_save_request());
    }
    sigaction(c.number, nullptr, &after);
    CHECK(before.sa_handler == after.sa_handler);
    StopSignals again;
    CHECK_FALSE(again.requested());
  }
}

TEST_CASE("SIGUSR1 asks for a checkpoint, once each, and for no end") {
  StopSignals signals;
  CHECK_FALSE(signals.take_save_request());
  raise(SIGUSR1);
  CHECK(signals.take_save_request());
  CHECK_FALSE(signals.take_save_request());
  raise(SIGUSR1);
  CHECK(signals.take_save_request());
  CHECK_FALSE(signals.requested());
}

TEST_CASE("nested signals: the outer ones see what the inner ones were asked") {
  StopSignals outer;
  {
    StopSignals inner;
    raise(SIGTERM);
    CHECK(inner.requested());
  }
  CHECK(outer.requested());
  raise(SIGTERM);  // still handled
  StopSignals next;
  CHECK(next.requested());
}

TEST_CASE("nohup stays in force") {
  const auto before = signal(SIGHUP, SIG_IGN);
  {
    StopSignals stop;
    raise(SIGHUP);
    CHECK_FALSE(stop.requested());
  }
  signal(SIGHUP, before);
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
