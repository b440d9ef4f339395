// Where the time goes: one entry per op, filled at the dispatch seam while Device::profile is set (nsa bench), nothing
// otherwise.
#pragma once

#include <chrono>
#include <map>
#include <string>

namespace nsa {

struct Profile {
  struct Entry {
    double seconds = 0;
    double bytes = 0;  ///< of the tensors the op was given, each once
    long calls = 0;
  };
  std::map<std::string, Entry> ops;  ///< by op name
};

/// Adds the time from construction to destruction, and `bytes`, to `profile` under `name`.
class OpTimer {
 public:
  OpTimer(Profile& profile, const char* name, double bytes)
      : profile_(profile), name_(name), bytes_(bytes), start_(std::chrono::steady_clock::now()) {}
  ~OpTimer() {
    Profile::Entry& entry = profile_.ops[name_];
    entry.seconds += std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
    entry.bytes += bytes_;
    ++entry.calls;
  }
  OpTimer(const OpTimer&) = delete;
  OpTimer& operator=(const OpTimer&) = delete;

 private:
  Profile& profile_;
  const char* name_;
  double bytes_;
  std::chrono::steady_clock::time_point start_;
};

}  // namespace nsa
