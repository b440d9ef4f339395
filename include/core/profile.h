// Where the time goes: one entry per op, filled at the dispatch seam while Device::profile is set (nsa bench), nothing otherwise.
#pragma once

#include <chrono>
#include <map>
#include <string>

namespace nsa {

struct Profile {
  struct Entry {
    double seconds = 0;
    long calls = 0;
  };
  std::map<std::string, Entry> ops;  ///< by op name
};

/// Adds the time from construction to destruction to `profile` under `name`; does nothing without a profile.
class OpTimer {
 public:
  OpTimer(Profile* profile, const char* name) : profile_(profile), name_(name) {
    if (profile_) start_ = std::chrono::steady_clock::now();
  }
  ~OpTimer() {
    if (!profile_) return;
    Profile::Entry& entry = profile_->ops[name_];
    entry.seconds += std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
    ++entry.calls;
  }
  OpTimer(const OpTimer&) = delete;
  OpTimer& operator=(const OpTimer&) = delete;

 private:
  Profile* profile_;
  const char* name_;
  std::chrono::steady_clock::time_point start_;
};

}  // namespace nsa
