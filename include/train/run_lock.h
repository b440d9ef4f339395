// Exclusive use of a run folder.
#pragma once

#include <string>

#include "core/file_lock.h"

namespace nsa {

/// A lock on run_dir/lock; the folder is made if need be.
class RunLock {
 public:
  explicit RunLock(const std::string& run_dir);
  /// Why the folder is not locked, in a sentence; "" when it is.
  const std::string& warning() const { return lock_.warning(); }

 private:
  FileLock lock_;
};

}  // namespace nsa
