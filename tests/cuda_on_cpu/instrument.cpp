// Kernels are compiled with -fsanitize=thread but not linked with its library: the compiler's call before every memory
// access arrives here. This file itself must not be compiled that way.
#include "cuda_on_cpu/instrument.h"

#include <cstring>

#include "cuda_on_cpu/asan.h"
#include "cuda_on_cpu/launch.h"
#include "cuda_on_cpu/race.h"

namespace {
bool seen = false;
}
bool cuda_on_cpu::instrumented() { return seen; }

#if !NSA_ASAN  // AddressSanitizer's builds find their own

namespace {
void note(const void* pc, const void* p, std::size_t bytes, bool write) {
  if (!cuda_on_cpu::machine.current || !cuda_on_cpu::machine.checking) return;
  std::string failure;
  try {
    cuda_on_cpu::race::touch_plain(pc, p, bytes, write);
  } catch (const cuda_on_cpu::Fault& f) {
    failure = f.what();
  }
  // The compiler takes these calls for ones that cannot throw: no exception may leave them.
  if (!failure.empty()) cuda_on_cpu::abandon_thread(failure);
}
}  // namespace

#define NSA_NOTE(name, bytes, write) \
  void __tsan_##name(const void* p) { note(__builtin_return_address(0), p, bytes, write); }
#define NSA_NOTES(n)                             \
  NSA_NOTE(read##n, n, false)                    \
  NSA_NOTE(write##n, n, true)                    \
  NSA_NOTE(unaligned_read##n, n, false)          \
  NSA_NOTE(unaligned_write##n, n, true)          \
  NSA_NOTE(volatile_read##n, n, false)           \
  NSA_NOTE(volatile_write##n, n, true)           \
  NSA_NOTE(unaligned_volatile_read##n, n, false) \
  NSA_NOTE(unaligned_volatile_write##n, n, true)

extern "C" {
NSA_NOTES(1)
NSA_NOTES(2)
NSA_NOTES(4)
NSA_NOTES(8)
NSA_NOTES(16)
void __tsan_read_range(const void* p, std::size_t n) { note(__builtin_return_address(0), p, n, false); }
void __tsan_write_range(const void* p, std::size_t n) { note(__builtin_return_address(0), p, n, true); }
void* __tsan_memcpy(void* to, const void* from, std::size_t n) {  // clang's
  note(__builtin_return_address(0), from, n, false);
  note(__builtin_return_address(0), to, n, true);
  return std::memcpy(to, from, n);
}
void* __tsan_memmove(void* to, const void* from, std::size_t n) {
  note(__builtin_return_address(0), from, n, false);
  note(__builtin_return_address(0), to, n, true);
  return std::memmove(to, from, n);
}
void* __tsan_memset(void* to, int value, std::size_t n) {
  note(__builtin_return_address(0), to, n, true);
  return std::memset(to, value, n);
}
void __tsan_init() { seen = true; }
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_vptr_update(void*, void*) {}
void __tsan_vptr_read(void*) {}
}

#endif
