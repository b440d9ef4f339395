// cp.async: copies of N = 4, 8 or 16 bytes from device to shared memory that a thread starts and waits for in groups.
#pragma once

#include "cuda/mbarrier.cuh"

#if !defined(__CUDACC__)
#include "cuda_on_cpu/copy.h"
#else

namespace nsa::cuda {

/// The first `from_bytes` bytes are read, the rest of the N becomes zeros: 0 for what lies outside (`from` is not
/// read).
template <int N>
NSA_DEVICE void cp_async(void* to, const void* from, std::uint32_t from_bytes = N) {
  static_assert(N == 4 || N == 8 || N == 16);
  if constexpr (N == 16)  // past the L1, which would only hold what shared memory holds anyway
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(to)), "l"(from), "r"(from_bytes)
                 : "memory");
  else
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"(shared_address(to)), "l"(from), "n"(N),
                 "r"(from_bytes)
                 : "memory");
}
NSA_DEVICE void cp_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
/// All but the N newest groups of this thread have landed. Trap: other threads know only after a barrier.
template <int N>
NSA_DEVICE void cp_async_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}
/// Arrives on the barrier, counted among its arrivals, once this thread's copies so far have landed.
NSA_DEVICE void cp_async_arrive(Mbarrier* b) {
  asm volatile("cp.async.mbarrier.arrive.noinc.shared.b64 [%0];" ::"r"(shared_address(b)) : "memory");
}

}  // namespace nsa::cuda
#endif
