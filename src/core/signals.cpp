#include "core/signals.h"

#include "core/check.h"

namespace nsa {

namespace {

struct Known {
  int number;
  const char* name;
};
constexpr std::array<Known, 6> kKnown{{{SIGTERM, "SIGTERM"},
                                       {SIGINT, "SIGINT"},
                                       {SIGHUP, "SIGHUP"},
                                       {SIGUSR1, "SIGUSR1"},
                                       {SIGUSR2, "SIGUSR2"},
                                       {SIGXCPU, "SIGXCPU"}}};

volatile sig_atomic_t g_stop = 0,
                      g_save = 0;  // the only things a handler may touch
int g_depth = 0;

extern "C" void on_signal(int number) {
  if (number == SIGUSR1) {
    g_save = 1;
  } else if (g_stop != 0 && number == SIGINT) {
    signal(number, SIG_DFL);  // die as an unhandled SIGINT does, so that a shell
                              // sees the right status
    raise(number);
  } else {
    g_stop = number;
  }
}

}  // namespace

StopSignals::StopSignals() : before_() {
  if (g_depth++ > 0) return;
  g_stop = 0;
  g_save = 0;
  struct sigaction action = {};
  action.sa_handler = on_signal;
  action.sa_flags = SA_RESTART;  // a write() of a checkpoint under way goes on
  sigemptyset(&action.sa_mask);
  for (std::size_t i = 0; i < kKnown.size(); ++i) {
    const int number = kKnown[i].number;
    NSA_CHECK(sigaction(number, nullptr, &before_[i]) == 0, "signals: sigaction failed");
    if (number == SIGHUP && before_[i].sa_handler == SIG_IGN) continue;  // nohup
    NSA_CHECK(sigaction(number, &action, nullptr) == 0, "signals: sigaction failed");
  }
}

StopSignals::~StopSignals() {
  if (--g_depth > 0) return;
  for (std::size_t i = 0; i < kKnown.size(); ++i) sigaction(kKnown[i].number, &before_[i], nullptr);
}

bool StopSignals::requested() const { return g_stop != 0; }

const char* StopSignals::name() const {
  for (const Known& known : kKnown)
    if (known.number == g_stop) return known.name;
  return "";
}

bool StopSignals::take_save_request() {
  if (g_save == 0) return false;
  g_save = 0;
  return true;
}

}  // namespace nsa
