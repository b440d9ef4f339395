// Kernels are compiled with -fsanitize=undefined but not linked with its library: what it finds (a misaligned float4,
// an index beyond a local array, a shift too far, an overflow) arrives here and ends the launch as any other defect.
#include <cstdio>
#include <cstdlib>

#include "cuda_on_cpu/asan.h"
#include "cuda_on_cpu/launch.h"
#include "cuda_on_cpu/machine.h"

#if !NSA_ASAN  // the sanitizers' builds link the library

namespace {

/// The first member of everything the compiler passes.
struct Location {
  const char* file;
  std::uint32_t line, column;
};

/// The compiler takes these calls for ones that cannot throw: no exception may leave them.
void report(const void* data, const char* what) {
  const auto* at = static_cast<const Location*>(data);
  const std::string file = at->file ? at->file : "?";
  std::string failure;
  try {
    cuda_on_cpu::fault("undefined behaviour at {}:{}: {}", file.substr(file.find_last_of('/') + 1), at->line, what);
  } catch (const cuda_on_cpu::Fault& f) {
    failure = f.what();
  }
  if (cuda_on_cpu::machine.current) cuda_on_cpu::abandon_thread(failure);
  std::fputs((failure + "\n").c_str(), stderr);  // host code
  std::abort();
}

}  // namespace

#define NSA_UNDEFINED(name, what, ...) \
  void __ubsan_handle_##name(void* data __VA_OPT__(, ) __VA_ARGS__) { report(data, what); }

extern "C" {
NSA_UNDEFINED(type_mismatch_v1, "a misaligned or null access", void*)
NSA_UNDEFINED(out_of_bounds, "an index beyond its array", void*)
NSA_UNDEFINED(shift_out_of_bounds, "a shift by more than there are bits", void*, void*)
NSA_UNDEFINED(add_overflow, "a signed sum overflows", void*, void*)
NSA_UNDEFINED(sub_overflow, "a signed difference overflows", void*, void*)
NSA_UNDEFINED(mul_overflow, "a signed product overflows", void*, void*)
NSA_UNDEFINED(negate_overflow, "a negation overflows", void*)
NSA_UNDEFINED(divrem_overflow, "a division by zero", void*, void*)
NSA_UNDEFINED(pointer_overflow, "pointer arithmetic overflows", void*, void*)
NSA_UNDEFINED(load_invalid_value, "a bool or enum with a value it cannot have", void*)
NSA_UNDEFINED(vla_bound_not_positive, "an array of no size", void*)
NSA_UNDEFINED(nonnull_arg, "null where it must not be")
NSA_UNDEFINED(nonnull_return_v1, "null where it must not be", void*)
NSA_UNDEFINED(builtin_unreachable, "what cannot be reached is")
NSA_UNDEFINED(missing_return, "a function ends without its result")
NSA_UNDEFINED(invalid_builtin, "a builtin of zero")
}

#endif
