#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdarg>
#include <cstdio>

#include "catch.h"
#include "syscalls.h"

namespace {

struct Fault {
  fault::Action action = fault::Action::none;
  int at = -1, errno_value = 0, count = 0;
  bool armed = false, happened = false;
  std::vector<std::string> trace;
  std::vector<std::pair<std::string, int>> refused;
};
Fault& current() {
  static Fault f;
  return f;
}

/// True when the call must fail instead (errno is set).
bool comes_by(const std::string& what) {
  Fault& f = current();
  if (!f.armed) return false;
  f.trace.push_back(what);
  for (const auto& [part, errno_value] : f.refused) {
    if (what.find(part) == std::string::npos) continue;
    errno = errno_value;
    return true;
  }
  if (f.count++ != f.at) return false;
  f.happened = true;
  if (f.action == fault::Action::kill) kill(getpid(), SIGKILL);
  errno = f.errno_value;
  return f.action == fault::Action::error;
}

std::string name_of(int fd) {
  if (!current().armed) return "";
  char path[4096];
  const ssize_t n = readlink(("/proc/self/fd/" + std::to_string(fd)).c_str(), path, sizeof path);
  return n > 0 ? std::string(path, static_cast<std::size_t>(n)) : "?";
}

}  // namespace

namespace fault {

void arm(Action action, int at, int errno_value) { current() = {action, at, errno_value, 0, true, false, {}, {}}; }
void refuse(const std::string& part, int errno_value) { current().refused.emplace_back(part, errno_value); }
int disarm() {
  current().armed = false;
  return current().count;
}
bool happened() { return current().happened; }
const std::vector<std::string>& trace() { return current().trace; }

}  // namespace fault

extern "C" {

int open(const char* path, int flags, ...) {
  mode_t mode = 0;
  if (flags & O_CREAT) {
    va_list args;
    va_start(args, flags);
    mode = va_arg(args, mode_t);
    va_end(args);
    if (comes_by(std::string("create ") + path)) return -1;
  }
  return static_cast<int>(syscall(SYS_openat, AT_FDCWD, path, flags, mode));
}
ssize_t write(int fd, const void* data, size_t bytes) {
  if (comes_by("write " + name_of(fd))) return -1;
  return syscall(SYS_write, fd, data, bytes);
}
int fsync(int fd) {
  if (comes_by("fsync " + name_of(fd))) return -1;
  return 0;
}
int fdatasync(int fd) {
  if (comes_by("fdatasync " + name_of(fd))) return -1;
  return 0;
}
int flock(int fd, int operation) noexcept {
  if (comes_by("flock " + name_of(fd))) return -1;
  return static_cast<int>(syscall(SYS_flock, fd, operation));
}
int mkdir(const char* path, mode_t mode) noexcept {
  if (comes_by(std::string("mkdir ") + path)) return -1;
  return static_cast<int>(syscall(SYS_mkdirat, AT_FDCWD, path, mode));
}
int rename(const char* from, const char* to) noexcept {
  if (comes_by(std::string("rename ") + from + " " + to)) return -1;
  return static_cast<int>(syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0));
}
int unlink(const char* path) noexcept {
  if (comes_by(std::string("unlink ") + path)) return -1;
  return static_cast<int>(syscall(SYS_unlinkat, AT_FDCWD, path, 0));
}
int unlinkat(int fd, const char* path, int flags) noexcept {
  if (comes_by("unlinkat " + (fd == AT_FDCWD ? "" : name_of(fd) + "/") + path)) return -1;
  return static_cast<int>(syscall(SYS_unlinkat, fd, path, flags));
}
int rmdir(const char* path) noexcept {
  if (comes_by(std::string("rmdir ") + path)) return -1;
  return static_cast<int>(syscall(SYS_unlinkat, AT_FDCWD, path, AT_REMOVEDIR));
}
}

TEST_CASE("fault injection: a call is counted, and the armed one fails") {
  char path[] = "/tmp/nsa_fault_XXXXXX";
  REQUIRE(mkdtemp(path) != nullptr);
  const std::string a = std::string(path) + "/a", b = std::string(path) + "/b";
  fault::arm(fault::Action::error, 2, ENOSPC);
  CHECK(mkdir(a.c_str(), 0777) == 0);
  CHECK(rename(a.c_str(), b.c_str()) == 0);
  CHECK(mkdir(a.c_str(), 0777) == -1);
  CHECK(errno == ENOSPC);
  CHECK(fault::happened());
  CHECK(rmdir(b.c_str()) == 0);
  CHECK(fault::trace() == std::vector<std::string>{"mkdir " + a, "rename " + a + " " + b, "mkdir " + a, "rmdir " + b});
  CHECK(fault::disarm() == 4);
  CHECK(rmdir(path) == 0);
}
