#include "core/file_lock.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "core/check.h"
#include "core/file.h"

namespace nsa {
namespace {

bool is_file_at(const std::string& path, int fd) {
  struct stat now {
  }, locked{};
  return stat(path.c_str(), &now) == 0 && fstat(fd, &locked) == 0 && now.st_dev == locked.st_dev &&
         now.st_ino == locked.st_ino;
}

}  // namespace

FileLock::FileLock(const std::string& path, const std::string& what, const std::string& hint) : path_(path) {
  int error = 0;
  do {
    if (fd_ >= 0) close(fd_);  // the holder before removed the file between our open and our flock
    fd_ = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    NSA_CHECK(fd_ >= 0, "cannot open {}: {}", path, std::strerror(errno));
    error = flock(fd_, LOCK_EX | LOCK_NB) == 0 ? 0 : errno;
  } while (error == 0 && !is_file_at(path, fd_));
  if (not_supported(error)) {
    warning_ = fmt::format("{} cannot be locked ({}): nothing keeps a second process from using {}", path,
                           std::strerror(error), what);
  } else if (error != 0) {
    char text[300];
    const ssize_t n = pread(fd_, text, sizeof text, 0);
    close(fd_);
    const std::string holder(text, n > 0 ? static_cast<std::size_t>(n) : 0);
    NSA_CHECK(error != EWOULDBLOCK, "{} is in use by {}; {}", what,
              holder.empty() ? "another process" : "process " + holder, hint);
    fail("cannot lock {}: {}", path, std::strerror(error));
  }
  char host[200] = "";
  gethostname(host, sizeof host - 1);
  const std::string self = fmt::format("{} on {}", getpid(), host);
  if (ftruncate(fd_, 0) != 0 || pwrite(fd_, self.data(), self.size(), 0) < 0) {
    // only the message of the next one suffers
  }
}

FileLock::~FileLock() {
  if (leave_nothing_) unlink(path_.c_str());
  close(fd_);
}

}  // namespace nsa
