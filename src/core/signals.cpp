#include "core/signals.h"

#include "core/check.h"

namespace nsa {

namespace {

volatile sig_atomic_t g_signal = 0;  // the one thing a handler may touch

extern "C" void on_stop_signal(int signal_number) {
  if (g_signal == 0 || signal_number == SIGTERM) {
    g_signal = signal_number;
    return;
  }
  signal(signal_number,
         SIG_DFL);  // asked twice: die as an unhandled SIGINT does, so that a shell sees the right status
  raise(signal_number);
}

}  // namespace

StopSignals::StopSignals() {
  g_signal = 0;
  struct sigaction action = {};
  action.sa_handler = on_stop_signal;
  action.sa_flags = SA_RESTART;  // a write() of a checkpoint under way goes on
  sigemptyset(&action.sa_mask);
  NSA_CHECK(sigaction(SIGTERM, &action, &old_term_) == 0 && sigaction(SIGINT, &action, &old_int_) == 0,
            "signals: sigaction failed");
}

StopSignals::~StopSignals() {
  sigaction(SIGTERM, &old_term_, nullptr);
  sigaction(SIGINT, &old_int_, nullptr);
}

bool StopSignals::requested() const { return g_signal != 0; }

const char* StopSignals::name() const { return g_signal == SIGTERM ? "SIGTERM" : g_signal == SIGINT ? "SIGINT" : ""; }

}  // namespace nsa
