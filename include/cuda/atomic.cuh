// Counters in device memory by which blocks speak to each other. CUDA's own atomics are used on integers only: a sum of
// floats would depend on their order (the emulator does not compile one).
#pragma once

#include "cuda/runtime.cuh"

#if !defined(__CUDACC__)
#include "cuda_on_cpu/atomic.h"
#else

namespace nsa::cuda {

/// *counter += value; gives the old one. What this thread knows is passed on, and what those before passed on is known.
NSA_DEVICE unsigned atomic_add_acq_rel(unsigned* counter, unsigned value) {
  unsigned old;
  asm volatile("atom.acq_rel.gpu.global.add.u32 %0, [%1], %2;" : "=r"(old) : "l"(counter), "r"(value) : "memory");
  return old;
}
NSA_DEVICE unsigned load_acquire(const unsigned* counter) {
  unsigned value;
  asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(value) : "l"(counter) : "memory");
  return value;
}
NSA_DEVICE void store_release(unsigned* counter, unsigned value) {
  asm volatile("st.release.gpu.global.u32 [%0], %1;" ::"l"(counter), "r"(value) : "memory");
}
/// Trap: whoever raises the counter must be running or be sure to run: blocks take tickets, they do not trust their
/// index.
NSA_DEVICE void wait_at_least(const unsigned* counter, unsigned value) {
  while (load_acquire(counter) < value) {
  }
}

}  // namespace nsa::cuda
#endif
