// mbarrier: its state is kept beside shared memory, since a kernel may not look into the object.
#pragma once

#include <cstdint>

#include "cuda_on_cpu/warp.h"

namespace cuda_on_cpu {

struct MemoryBarrier;
/// The barrier at `p`, for an operation of the current thread; a Fault where none was initialised.
MemoryBarrier& memory_barrier(const void* p, const char* what, const Site& site);
void add_bytes(MemoryBarrier& barrier, std::int64_t bytes);
void arrive(MemoryBarrier& barrier, std::uint32_t count, const char* what, const Site& site);

}  // namespace cuda_on_cpu

namespace nsa::cuda {

struct alignas(8) Mbarrier {
  std::uint64_t word;
};

void mbarrier_init(Mbarrier* b, std::uint32_t count, NSA_SITE);
void mbarrier_fence_init(NSA_SITE);
void mbarrier_arrive(Mbarrier* b, std::uint32_t count = 1, NSA_SITE);
void mbarrier_expect(Mbarrier* b, std::uint32_t bytes, NSA_SITE);
void mbarrier_arrive_expect(Mbarrier* b, std::uint32_t bytes, NSA_SITE);
void mbarrier_complete(Mbarrier* b, std::uint32_t bytes, NSA_SITE);
bool mbarrier_test(Mbarrier* b, std::uint32_t parity, NSA_SITE);
void mbarrier_wait(Mbarrier* b, std::uint32_t parity, NSA_SITE);

}  // namespace nsa::cuda
