// Barriers beside __syncthreads, and the fence between ordinary accesses and the async proxy.
#pragma once

#include "cuda/runtime.cuh"

#if !defined(__CUDACC__)
#include "cuda_on_cpu/barrier.h"
#else

namespace nsa::cuda {

/// Barrier `id` (1 to 15) among `threads` threads, whole warps: waits until that many have come.
NSA_DEVICE void named_barrier_sync(std::uint32_t id, std::uint32_t threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}
/// Comes to the barrier without waiting.
NSA_DEVICE void named_barrier_arrive(std::uint32_t id, std::uint32_t threads) {
  asm volatile("bar.arrive %0, %1;" ::"r"(id), "r"(threads) : "memory");
}
/// Trap: what threads wrote to shared memory (also by stmatrix or cp.async) and TMA or wgmma will read or overwrite
/// needs this in every WRITING thread, and a barrier after it.
NSA_DEVICE void fence_async_proxy() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

}  // namespace nsa::cuda
#endif
