// What every main() is made of. Closed and full streams are tried on the programs themselves (tests/cli).
#include "core/program.h"

#include <fcntl.h>
#include <unistd.h>

#include <cstdlib>
#include <new>

#include "catch.h"

using namespace nsa;

namespace {

/// An environment variable, put back in the end.
class Variable {
 public:
  explicit Variable(const char* name) : name_(name), was_(std::getenv(name)), value_(was_ ? was_ : "") {}
  ~Variable() { was_ ? set(value_.c_str()) : set(nullptr); }
  void set(const char* value) const { value ? setenv(name_, value, 1) : unsetenv(name_); }

 private:
  const char *name_, *was_;
  std::string value_;
};

}  // namespace

TEST_CASE("escape codes go only to a terminal that wants them") {
  const int master = posix_openpt(O_RDWR | O_NOCTTY);
  REQUIRE((master >= 0 && grantpt(master) == 0 && unlockpt(master) == 0));
  const int terminal = open(ptsname(master), O_RDWR | O_NOCTTY), file = open("/dev/null", O_WRONLY);
  REQUIRE(terminal >= 0);
  const Variable no_color("NO_COLOR"), term("TERM");
  no_color.set(nullptr);
  term.set("xterm-256color");
  CHECK(takes_escape_codes(terminal));
  CHECK_FALSE(takes_escape_codes(file));
  CHECK_FALSE(takes_escape_codes(-1));
  no_color.set("");  // as the convention has it: empty is not set
  CHECK(takes_escape_codes(terminal));
  for (const char* value : {"1", "0", "yes"}) {
    no_color.set(value);
    CHECK_FALSE(takes_escape_codes(terminal));
  }
  no_color.set(nullptr);
  for (const char* value : {"dumb", "", static_cast<const char*>(nullptr)}) {
    term.set(value);
    CHECK_FALSE(takes_escape_codes(terminal));
  }
  for (const int fd : {master, terminal, file}) close(fd);
}

TEST_CASE("an error becomes its exit code") {
  CHECK(guarded([] { return Exit::non_finite; }) == Exit::non_finite);
  CHECK(guarded([]() -> Exit { throw Error("nobody reads any more", Exit::ok); }) == Exit::ok);
  CHECK(guarded([]() -> Exit { fail_usage("a test's"); }) == Exit::usage);
  CHECK(guarded([]() -> Exit { throw std::bad_alloc(); }) == Exit::error);
  CHECK(guarded([]() -> Exit { throw std::runtime_error("a test's"); }) == Exit::error);
}

TEST_CASE("a command line can be pasted into a shell") {
  const char* words[] = {"train", "a.json", "train.lr=3e-4", "--prompt", "it's $5", "", "log.name=a b"};
  CHECK(command_line("nsa", 7, const_cast<char**>(words)) ==
        "nsa train a.json train.lr=3e-4 --prompt 'it'\\''s $5' '' 'log.name=a b'");
}
