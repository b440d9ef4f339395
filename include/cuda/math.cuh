// Approximate functions (denormals are zeros, in and out) and conversions to bf16.
#pragma once

#include "core/dtype.h"
#include "cuda/runtime.cuh"

#if !defined(__CUDACC__)
#include "cuda_on_cpu/math.h"
#else

namespace nsa::cuda {

#define NSA_APPROX(name, instruction)                              \
  NSA_DEVICE float name(float x) {                                 \
    float y;                                                       \
    asm(instruction ".approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x)); \
    return y;                                                      \
  }
NSA_APPROX(exp2_approx, "ex2")
NSA_APPROX(log2_approx, "lg2")
NSA_APPROX(rcp_approx, "rcp")
NSA_APPROX(rsqrt_approx, "rsqrt")
#undef NSA_APPROX

/// Two bf16, rounded to nearest, `low` in the low half. A NaN becomes 0x7fff.
NSA_DEVICE std::uint32_t pack_bf16(float low, float high) {
  std::uint32_t both;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(high), "f"(low));  // the first source goes to the high half
  return both;
}

}  // namespace nsa::cuda
#endif

namespace nsa::cuda {

/// The halves of a register with two bf16.
NSA_DEVICE float low_bf16(std::uint32_t both) { return __uint_as_float(both << 16); }
NSA_DEVICE float high_bf16(std::uint32_t both) { return __uint_as_float(both & 0xffff0000u); }

NSA_DEVICE float to_float(float x) { return x; }
NSA_DEVICE float to_float(bf16 x) { return __uint_as_float(static_cast<std::uint32_t>(x.bits) << 16); }
template <class T>
NSA_DEVICE T from_float(float x) {
  if constexpr (sizeof(T) == sizeof(float)) {
    return x;
  } else {
    T y;
    y.bits = static_cast<std::uint16_t>(pack_bf16(x, 0.0f));
    return y;
  }
}

}  // namespace nsa::cuda
