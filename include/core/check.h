// Errors. One exception type, thrown where a human mistake is first visible, caught once in cli/main.cpp (DESIGN law
// 4). A message is one sentence: what, where, expected, got, and the likely mistake.
#pragma once

#include <fmt/format.h>

#include <cstdint>
#include <stdexcept>
#include <string>

namespace nsa {

/// Process exit codes of the `nsa` binary and of the data tools.
enum class Exit : int {
  ok = 0,
  error = 1,       ///< anything that is not one of the below
  usage = 2,       ///< bad command line or bad config
  non_finite = 3,  ///< training stopped after train.max_skipped non-finite steps; the sentence says where its state is
};

/// What every failure becomes. `what()` is the sentence shown to the user.
class Error : public std::runtime_error {
 public:
  explicit Error(const std::string& sentence, Exit code = Exit::error) : std::runtime_error(sentence), code_(code) {}
  Exit code() const { return code_; }

 private:
  Exit code_;
};

template <class... Args>
[[noreturn]] void fail(fmt::format_string<Args...> format, Args&&... args) {
  throw Error(fmt::format(format, std::forward<Args>(args)...));
}

/// A wrong config or command line: exit code 2.
template <class... Args>
[[noreturn]] void fail_usage(fmt::format_string<Args...> format, Args&&... args) {
  throw Error(fmt::format(format, std::forward<Args>(args)...), Exit::usage);
}

}  // namespace nsa

/// NSA_CHECK(n > 0, "matmul: rows must be positive, got {}", n): the condition, then the sentence.
#define NSA_CHECK(condition, ...)  \
  do {                             \
    if (!(condition)) [[unlikely]] \
      ::nsa::fail(__VA_ARGS__);    \
  } while (0)
