// What the emulator says about a kernel: a defect ends the launch with an exception that names it.
#pragma once

#include <fmt/format.h>

#include <cstdint>
#include <source_location>
#include <stdexcept>
#include <string>

namespace cuda_on_cpu {

using Site = std::source_location;
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
