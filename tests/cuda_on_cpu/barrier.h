// Barriers of a block's threads, and fences.
#pragma once

#include <cstdint>

#include "cuda_on_cpu/warp.h"

/// Reached by all live threads, on the same line.
void __syncthreads(NSA_SITE);
inline void __threadfence() {}
inline void __threadfence_block() {}

namespace nsa::cuda {

void named_barrier_sync(std::uint32_t id, std::uint32_t threads, NSA_SITE);
void named_barrier_arrive(std::uint32_t id, std::uint32_t threads, NSA_SITE);
void fence_async_proxy(NSA_SITE);

}  // namespace nsa::cuda
