#include "train/run_lock.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "core/check.h"
#include "core/file.h"

namespace nsa {

RunLock::RunLock(const std::string& run_dir) {
  make_folders(run_dir);
  const std::string path = run_dir + "/lock";
  fd_ = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
  NSA_CHECK(fd_ >= 0, "cannot open {}: {}", path, std::strerror(errno));
  // The kernel frees a lock when its holder dies, however that happens: it is never stale.
  const int error = flock(fd_, LOCK_EX | LOCK_NB) == 0 ? 0 : errno;
  if (not_supported(error)) {
    warning_ = fmt::format("{} cannot be locked ({}): nothing keeps a second process from training in {}", path,
                           std::strerror(error), run_dir);
  } else if (error != 0) {
    char text[300];
    const ssize_t n = pread(fd_, text, sizeof text, 0);
    close(fd_);
    const std::string holder(text, n > 0 ? static_cast<std::size_t>(n) : 0);
    NSA_CHECK(error != EWOULDBLOCK,
              "the run folder {} is in use by {}; wait for it, stop it, or give this run another log.name", run_dir,
              holder.empty() ? "another process" : "process " + holder);
    fail("cannot lock {}: {}", path, std::strerror(error));
  }
  char host[200] = "";
  gethostname(host, sizeof host - 1);
  const std::string self = fmt::format("{} on {}", getpid(), host);
  if (ftruncate(fd_, 0) != 0 || pwrite(fd_, self.data(), self.size(), 0) < 0) {
    // only the message of the next one suffers
  }
}

RunLock::~RunLock() { close(fd_); }

}  // namespace nsa
