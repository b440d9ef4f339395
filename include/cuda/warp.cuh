// Warp collectives. CUDA's own (__shfl_*_sync, __ballot_sync, __match_*_sync, __reduce_*_sync, __syncwarp) are used as
// they are, always with an explicit mask. Trap: only __syncwarp orders memory; a shuffle does not.
#pragma once

#include "cuda/runtime.cuh"

#if !defined(__CUDACC__)
#include "cuda_on_cpu/warp.h"
#else

namespace nsa::cuda {

/// True in exactly one lane of a full warp.
NSA_DEVICE bool elect_one() {
  std::uint32_t is_leader;
  asm volatile("{\n.reg .pred p;\nelect.sync _|p, %1;\nselp.u32 %0, 1, 0, p;\n}\n" : "=r"(is_leader) : "r"(~0u));
  return is_leader != 0;
}

}  // namespace nsa::cuda
#endif
