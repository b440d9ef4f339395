// mbarrier: a barrier in shared memory that also counts the bytes of copies. A phase is over when all arrivals have
// come and no announced byte is missing. sm_90.
#pragma once

#include "cuda/shared.cuh"

#if !defined(__CUDACC__)
#include "cuda_on_cpu/mbarrier.h"
#else

namespace nsa::cuda {

/// Opaque: loads see whatever the memory held before, never the state.
struct alignas(8) Mbarrier {
  std::uint64_t word;
};

/// One thread; then mbarrier_fence_init() if copies complete on it, then a barrier of all who use it.
NSA_DEVICE void mbarrier_init(Mbarrier* b, std::uint32_t count) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(b)), "r"(count) : "memory");
}
/// Makes this thread's mbarrier_init visible to the copy engine.
NSA_DEVICE void mbarrier_fence_init() { asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory"); }

NSA_DEVICE void mbarrier_arrive(Mbarrier* b, std::uint32_t count = 1) {
  asm volatile("mbarrier.arrive.release.cta.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(b)), "r"(count)
               : "memory");
}
/// Announces bytes; they may land before that.
NSA_DEVICE void mbarrier_expect(Mbarrier* b, std::uint32_t bytes) {
  asm volatile("mbarrier.expect_tx.relaxed.cta.shared::cta.b64 [%0], %1;" ::"r"(shared_address(b)), "r"(bytes)
               : "memory");
}
NSA_DEVICE void mbarrier_arrive_expect(Mbarrier* b, std::uint32_t bytes) {
  asm volatile("mbarrier.arrive.expect_tx.release.cta.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(b)), "r"(bytes)
               : "memory");
}
/// What a copy does when it lands.
NSA_DEVICE void mbarrier_complete(Mbarrier* b, std::uint32_t bytes) {
  asm volatile("mbarrier.complete_tx.relaxed.cta.shared::cta.b64 [%0], %1;" ::"r"(shared_address(b)), "r"(bytes)
               : "memory");
}
/// Is the phase with this parity over? Trap: for a fresh barrier parity 1 is, so producers begin waiting with 1.
NSA_DEVICE bool mbarrier_test(Mbarrier* b, std::uint32_t parity) {
  std::uint32_t done;
  asm volatile("{\n.reg .pred p;\nmbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\nselp.u32 %0, 1, 0, p;\n}\n"
               : "=r"(done)
               : "r"(shared_address(b)), "r"(parity)
               : "memory");
  return done != 0;
}
NSA_DEVICE void mbarrier_wait(Mbarrier* b, std::uint32_t parity) {
  while (!mbarrier_test(b, parity)) {
  }
}

}  // namespace nsa::cuda
#endif
