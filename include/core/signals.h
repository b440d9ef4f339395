// SIGTERM and SIGINT ask a run to finish its step, save and exit 0.
#pragma once

#include <signal.h>

namespace nsa {

/// From construction to destruction SIGTERM and SIGINT only set a flag; afterwards the handlers from before are back. A
/// second SIGINT kills (a user who presses Ctrl-C twice means it). One object at a time: a signal handler can reach
/// nothing but a static flag.
class StopSignals {
 public:
  StopSignals();
  ~StopSignals();
  StopSignals(const StopSignals&) = delete;
  StopSignals& operator=(const StopSignals&) = delete;

  bool requested() const;
  /// "SIGTERM", "SIGINT", or "" while none came.
  const char* name() const;

 private:
  struct sigaction old_term_, old_int_;
};

}  // namespace nsa
