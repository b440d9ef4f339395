// The CUDA run-time, or its stand-in where kernels run on the CPU (tests/cuda_on_cpu). Every file with kernels starts
// with this or with a header that does.
#pragma once

#include <cstdint>

#if defined(__CUDACC__)
#include <cuda_runtime.h>
#define NSA_DEVICE __device__ __forceinline__
#define NSA_EMULATED 0
#else
#include "cuda_on_cpu/atomic.h"
#include "cuda_on_cpu/barrier.h"
#include "cuda_on_cpu/builtins.h"
#include "cuda_on_cpu/runtime.h"
#define NSA_DEVICE inline
#define NSA_EMULATED 1
#endif

#include "core/check.h"

/// #if NSA_SM90: code for Hopper. True where the device code that is being compiled may use it, and on the host.
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ == 900
#define NSA_SM90 1
#else
#define NSA_SM90 0
#endif

namespace nsa::cuda {

/// Do kernels of this program run on the CPU?
constexpr bool kEmulated = NSA_EMULATED != 0;

/// Every call's result goes through here: `what` is the op or the call, for the sentence.
inline void check(cudaError_t error, const char* what) {
  NSA_CHECK(error == cudaSuccess, "{}: the GPU reports: {}", what, cudaGetErrorString(error));
}

}  // namespace nsa::cuda
