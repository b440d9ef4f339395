// Shared memory: dynamic arrays one after another, and static ones.
//     SharedMemory shared;                             // in the kernel
//     bf16* tile = shared.take<bf16>(128 * 64, 1024);  // 1024: a TMA or wgmma tile
//     SharedSize size;                                 // beside it, for the launch: the same calls in the same order
//     size.take<bf16>(128 * 64, 1024);
// Trap: a kernel with dynamic arrays has no static ones, else the first does not start at a multiple of 1024.
#pragma once

#include <cstddef>

#include "cuda/runtime.cuh"

namespace nsa::cuda {

struct SharedSize {
  std::size_t bytes = 0;
  template <class T>
  constexpr void take(std::size_t n, std::size_t alignment = 16) {
    bytes = (bytes + alignment - 1) / alignment * alignment + n * sizeof(T);
  }
};

}  // namespace nsa::cuda

#if !defined(__CUDACC__)
#include "cuda_on_cpu/shared.h"
#else

/// NSA_SHARED(float, partial, [32]): one array for the block.
#define NSA_SHARED(T, name, dims) __shared__ __align__(16) T name dims

namespace nsa::cuda {

/// The 32-bit address that instructions take.
NSA_DEVICE std::uint32_t shared_address(const void* p) {
  return static_cast<std::uint32_t>(__cvta_generic_to_shared(p));
}

class SharedMemory {
 public:
  template <class T>
  NSA_DEVICE T* take(std::size_t n, std::size_t alignment = 16) {
    extern __shared__ __align__(1024) unsigned char nsa_dynamic_shared[];
    const std::size_t begin = (used_ + alignment - 1) / alignment * alignment;
    used_ = begin + n * sizeof(T);
    return reinterpret_cast<T*>(nsa_dynamic_shared + begin);
  }

 private:
  std::size_t used_ = 0;
};

}  // namespace nsa::cuda
#endif
