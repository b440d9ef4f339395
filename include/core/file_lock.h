// Exclusive use of what a file stands for.
#pragma once

#include <string>

namespace nsa {

/// flock on a file that holds the pid for the message. The kernel frees a lock when its holder dies, however that
/// happens: it is never stale. A file system without locks is a warning, not a refusal.
class FileLock {
 public:
  /// Throws "WHAT is in use by process ...; HINT" when another live process has it.
  FileLock(const std::string& path, const std::string& what, const std::string& hint);
  ~FileLock();
  FileLock(const FileLock&) = delete;
  FileLock& operator=(const FileLock&) = delete;

  /// The destructor removes the file too.
  void leave_nothing() { leave_nothing_ = true; }
  /// Why it is not locked, in a sentence; "" when it is.
  const std::string& warning() const { return warning_; }

 private:
  std::string path_;
  int fd_ = -1;
  bool leave_nothing_ = false;
  std::string warning_;
};

}  // namespace nsa
