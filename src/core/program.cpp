#include "core/program.h"

#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <new>
#include <string_view>

namespace nsa {

namespace {

// Opened the wrong way round, so that using a stream that was closed still fails.
void hold_standard_streams() {
  for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; ++fd) {
    if (fcntl(fd, F_GETFD) != -1 || errno != EBADF) continue;
    const int opened = open("/dev/null", fd == STDIN_FILENO ? O_WRONLY : O_RDONLY);  // the lowest free number: fd
    if (opened >= 0 && opened != fd) close(opened);
  }
}

void say_error(const char* sentence) {
  std::fprintf(stderr, "%s: error: %s\n", program_invocation_short_name, sentence);
}

bool reader_is_gone(int fd) {
  pollfd state{fd, POLLOUT, 0};
  return poll(&state, 1, 0) == 1 && (state.revents & (POLLERR | POLLHUP)) != 0;
}

}  // namespace

Exit guarded(const std::function<Exit()>& body) {
  try {
    return body();
  } catch (const Error& e) {
    std::fflush(stdout);
    if (e.code() != Exit::ok) say_error(e.what());
    return e.code();
  } catch (const std::bad_alloc&) {
    std::fflush(stdout);
    say_error("out of memory");
  } catch (const std::exception& e) {
    std::fflush(stdout);
    say_error(e.what());
  }
  return Exit::error;
}

int run_program(const std::function<Exit()>& body) {
  hold_standard_streams();
  for (int ignored : {SIGPIPE, SIGXFSZ, SIGTTOU}) std::signal(ignored, SIG_IGN);
  return static_cast<int>(guarded(body));
}

void flush_results() {
  errno = 0;
  if (std::fflush(stdout) == 0 && std::ferror(stdout) == 0) return;
  int error = errno;
  if (error == 0 && write(STDOUT_FILENO, "\n", 1) < 0) error = errno;  // it failed earlier, and stdio forgot why
  if (error == EPIPE || reader_is_gone(STDOUT_FILENO)) throw Error("nobody reads standard output any more", Exit::ok);
  fail("standard output: {}", error ? std::strerror(error) : "a part of it could not be written");
}

bool takes_escape_codes(int fd) {
  const char *no_color = std::getenv("NO_COLOR"), *term = std::getenv("TERM");
  return isatty(fd) == 1 && !(no_color && *no_color) && term && *term && std::string_view(term) != "dumb";
}

std::string command_line(const std::string& program, int argc, char** argv) {
  constexpr std::string_view kPlain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_=+./,:@%^";
  std::string line = program;
  for (int i = 0; i < argc; ++i) {
    const std::string_view word = argv[i];
    if (!word.empty() && word.find_first_not_of(kPlain) == std::string_view::npos) {
      line.append(" ").append(word);
      continue;
    }
    line += " '";
    for (const char c : word) c == '\'' ? line += "'\\''" : line += c;
    line += "'";
  }
  return line;
}

}  // namespace nsa
