// The only way to start a kernel: launch("rmsnorm", kernel, grid, block, shared, stream, arguments...). `shared` is
// what SharedSize (shared.cuh) adds up.
#pragma once

#include "cuda/runtime.cuh"

#if !defined(__CUDACC__)
#include "cuda_on_cpu/launch.h"
#else

#include <cstddef>

namespace nsa::cuda {

template <class... Parameters, class... Arguments>
void launch(const char* name, void (*kernel)(Parameters...), dim3 grid, dim3 block, std::size_t shared,
            cudaStream_t stream, Arguments&&... arguments) {
  if (shared > 48 * 1024)  // more than this a kernel must ask for
    check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared)), name);
  // clang-format off
  kernel<<<grid, block, shared, stream>>>(static_cast<Arguments&&>(arguments)...);
  // clang-format on
  check(cudaGetLastError(), name);
}

}  // namespace nsa::cuda
#endif
