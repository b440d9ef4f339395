// What a GPU checks at every 128-bit access.
#pragma once

#include <cstdint>

#include "cuda_on_cpu/warp.h"

namespace nsa::cuda {

inline void check_aligned(const void* p, NSA_SITE) {
  if (reinterpret_cast<std::uintptr_t>(p) % 16)
    cuda_on_cpu::fault("misaligned access of 16 bytes at {}: address {}", cuda_on_cpu::describe(site), p);
}

}  // namespace nsa::cuda
