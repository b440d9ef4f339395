// Exclusive use of a run folder.
#pragma once

#include <string>

namespace nsa {

/// flock on run_dir/lock, which holds the pid for the message. Throws when another live process has it. A file system
/// without locks is a warning, not a refusal.
class RunLock {
 public:
  explicit RunLock(const std::string& run_dir);
  ~RunLock();
  RunLock(const RunLock&) = delete;
  RunLock& operator=(const RunLock&) = delete;
  /// Why the folder is not locked, in a sentence; "" when it is.
  const std::string& warning() const { return warning_; }

 private:
  int fd_ = -1;
  std::string warning_;
};

}  // namespace nsa
