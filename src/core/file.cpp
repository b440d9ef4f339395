#include "core/file.h"

#include <fcntl.h>
#include <pwd.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "core/check.h"

namespace nsa {

namespace {

constexpr std::int64_t kWriteBehind = 32 << 20;

/// "runs/a" -> "runs", "a" -> ".", "/a" -> "/"
std::string folder_of(const std::string& path) {
  const std::size_t slash = path.rfind('/');
  return slash == std::string::npos ? "." : slash == 0 ? "/" : path.substr(0, slash);
}

}  // namespace

std::string expand_home(const std::string& path) {
  if (path.empty() || path[0] != '~') return path;
  const std::string name = path.substr(1, path.find('/') - 1);  // npos - 1: to the end
  const std::string rest = path.substr(1 + name.size());
  if (name.empty()) {
    const char* home = std::getenv("HOME");
    if (!home || !*home)
      fail_usage("{}: ~ is the home folder, but HOME is not set: write the path out (./~ is a file of that name)",
                 path);
    return home + rest;
  }
  const passwd* user = getpwnam(name.c_str());
  return user && user->pw_dir ? user->pw_dir + rest : path;
}

std::string read_file(const std::string& path) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  NSA_CHECK(fd >= 0, "cannot read {}: {}", path, std::strerror(errno));
  std::string content;
  struct stat info;
  if (fstat(fd, &info) == 0 && S_ISREG(info.st_mode)) content.reserve(static_cast<std::size_t>(info.st_size));
  char buffer[1 << 16];
  while (true) {
    const ssize_t n = read(fd, buffer, sizeof buffer);
    if (n == 0) break;
    if (n > 0) {
      content.append(buffer, static_cast<std::size_t>(n));
    } else if (errno != EINTR) {
      const int error = errno;
      close(fd);
      fail("cannot read {}: {}", path, std::strerror(error));
    }
  }
  close(fd);
  return content;
}

OutputFile::OutputFile(const std::string& path)
    : path_(path), fd_(open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666)) {
  NSA_CHECK(fd_ >= 0, "cannot create {}: {}", path, std::strerror(errno));
}

OutputFile::~OutputFile() {
  if (fd_ < 0) return;
  struct stat info;
  const bool regular = fstat(fd_, &info) == 0 && S_ISREG(info.st_mode);  // root must not lose /dev/null
  close(fd_);
  if (regular) unlink(path_.c_str());
}

void OutputFile::write(const void* data, std::size_t bytes) {
  const char* p = static_cast<const char*>(data);
  while (bytes > 0) {
    const ssize_t n = ::write(fd_, p, std::min<std::size_t>(bytes, 1u << 30));
    if (n > 0) {
      p += n;
      bytes -= static_cast<std::size_t>(n);
      written_ += n;
      if (written_ - started_ >= kWriteBehind) write_behind();
    } else {
      NSA_CHECK(n < 0 && errno == EINTR, "cannot write {}: {}", path_, std::strerror(n < 0 ? errno : EIO));
    }
  }
}

// Starts sending what is new to the disk, waits for the stretch before it and gives its cache pages back, which the
// next stretch then takes: copying and the disk overlap, and a checkpoint does not push everything else out of the page
// cache. Only hints: errors come out of fsync.
void OutputFile::write_behind() {
  sync_file_range(fd_, started_, written_ - started_, SYNC_FILE_RANGE_WRITE);
  if (started_ > on_disk_) {
    sync_file_range(fd_, on_disk_, started_ - on_disk_,
                    SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER);
    posix_fadvise(fd_, on_disk_, started_ - on_disk_, POSIX_FADV_DONTNEED);
  }
  on_disk_ = std::exchange(started_, written_);
}

void OutputFile::finish() {
  NSA_CHECK(fsync(fd_) == 0 || not_supported(errno), "cannot write {} to the disk: {}", path_,
            std::strerror(errno));  // not supported: a pipe or a device
  const int fd = std::exchange(fd_, -1);
  if (close(fd) != 0 && errno != EINTR) {  // some file systems (NFS, quotas) report a failed write only here
    const int error = errno;
    unlink(path_.c_str());
    fail("cannot write {}: {}", path_, std::strerror(error));
  }
}

void write_file_atomic(const std::string& path, const std::string& content) {
  const std::string temporary = fmt::format("{}.tmp-{}", path, getpid());
  OutputFile file(temporary);
  file.write(content.data(), content.size());
  file.finish();
  if (rename(temporary.c_str(), path.c_str()) != 0) {
    const int error = errno;
    unlink(temporary.c_str());
    fail("cannot replace {}: {}", path, std::strerror(error));
  }
  sync_folder(folder_of(path));
}

bool not_supported(int error) {
  for (int known : {EINVAL, ENOSYS, EOPNOTSUPP, ENOTSUP, EBADF, ENOLCK})
    if (error == known) return true;
  return false;
}

std::string sync_folder(const std::string& path) {
  const int fd = open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  int error = fd < 0 ? errno : 0;
  NSA_CHECK(error == 0 || error == EACCES, "cannot open the folder {}: {}", path, std::strerror(error));
  if (fd >= 0) {
    error = fsync(fd) == 0 ? 0 : errno;
    close(fd);
    NSA_CHECK(error == 0 || not_supported(error), "cannot write the folder {} to the disk: {}", path,
              std::strerror(error));
  }
  if (error == 0) return "";
  return fmt::format("the folder {} cannot be synced ({}): after a power cut its newest files may be missing", path,
                     std::strerror(error));
}

void make_folders(const std::string& path) {
  NSA_CHECK(!path.empty(), "cannot make a folder without a name");
  for (std::size_t end = path.find('/', 1);; end = path.find('/', end + 1)) {
    const std::string part = path.substr(0, end);
    struct stat info;
    if (stat(part.c_str(), &info) == 0) {
      NSA_CHECK(S_ISDIR(info.st_mode), "cannot make the folder {}: {} is a file", path, part);
    } else if (mkdir(part.c_str(), 0777) == 0) {
      sync_folder(folder_of(part));  // or a file inside it, however well synced, may be nowhere after a power cut
    } else {
      NSA_CHECK(errno == EEXIST, "cannot make the folder {}: {}", part,
                std::strerror(errno));  // another process was quicker
    }
    if (end == std::string::npos) return;
  }
}

}  // namespace nsa
