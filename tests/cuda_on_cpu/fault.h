// What the emulator says about a kernel: a defect ends the launch with an exception that names it.
#pragma once

#include <fmt/format.h>

#include <cstdint>
#include <stdexcept>
#include <string>

namespace cuda_on_cpu {

/// A line of a kernel: default arguments carry it into what the line calls. (clang 14 has no std::source_location.)
struct Site {
  const char* file = "";
  unsigned line = 0;
  static constexpr Site current(const char* file = __builtin_FILE(), unsigned line = __builtin_LINE()) {
    return {file, line};
  }
};
/// "attention.cu:88"
std::string describe(const Site& site);

/// A defect of a kernel or of its launch. what() names the kernel, block and thread, the schedule, and the defect.
struct Fault : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// Throws a Fault for the thread that runs now.
[[noreturn]] void fault_text(const std::string& text);
template <class... Args>
[[noreturn]] void fault(fmt::format_string<Args...> format, Args&&... args) {
  fault_text(fmt::format(format, std::forward<Args>(args)...));
}

}  // namespace cuda_on_cpu
