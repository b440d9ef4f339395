// What a shell, a terminal or a scheduler may ask of a long job.
#pragma once

#include <signal.h>

#include <array>

namespace nsa {

/// From construction to destruction the signals only set a flag; afterwards the handlers from before are back.
///   SIGTERM, SIGINT, SIGHUP, SIGUSR2, SIGXCPU: stop (a run finishes its step, saves and ends with 0)
///   SIGUSR1: save and go on
/// A second SIGINT kills: a user who presses Ctrl-C twice means it. A SIGHUP that is ignored from the start (nohup)
/// stays ignored. Objects may be nested, and then share the flags: a handler can reach nothing but a static.
class StopSignals {
 public:
  StopSignals();
  ~StopSignals();
  StopSignals(const StopSignals&) = delete;
  StopSignals& operator=(const StopSignals&) = delete;

  bool requested() const;
  /// The signal that asked to stop, "SIGTERM", ..., or "" while none came.
  const char* name() const;
  /// True once after each SIGUSR1 (several in quick succession count as one).
  bool take_save_request();

 private:
  std::array<struct sigaction, 6> before_;
};

}  // namespace nsa
