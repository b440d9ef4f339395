#include "train/append_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "core/check.h"
#include "core/file.h"

namespace nsa {

AppendFile::AppendFile(std::string path) : path_(std::move(path)) {
  fd_ = ::open(path_.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
  NSA_CHECK(fd_ >= 0, "{}: cannot be opened for writing: {}", path_, std::strerror(errno));
}

AppendFile::~AppendFile() { ::close(fd_); }

bool AppendFile::append(std::string_view bytes) {
  const off_t before = ::lseek(fd_, 0, SEEK_END);
  while (!bytes.empty()) {
    const ssize_t n = ::write(fd_, bytes.data(), bytes.size());
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) {
      error_ = n < 0 ? std::strerror(errno) : "nothing was written";
      if (before >= 0 && ::ftruncate(fd_, before) != 0) error_ += "; its last record is incomplete";
      return false;
    }
    bytes.remove_prefix(static_cast<std::size_t>(n));
  }
  return true;
}

bool AppendFile::sync() {
  if (::fdatasync(fd_) == 0 || not_supported(errno)) return true;
  error_ = std::strerror(errno);
  return false;
}

}  // namespace nsa
