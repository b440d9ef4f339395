#include "cuda_on_cpu/math.h"

#include <bit>
#include <cmath>
#include <limits>

namespace nsa::cuda {

namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
const float kNan = std::bit_cast<float>(0x7fffffffu);

/// .ftz: denormals in and out are zeros of the same sign.
float flushed(float x) { return std::fabs(x) < std::numeric_limits<float>::min() ? std::copysign(0.0f, x) : x; }
float canonical(double y) { return std::isnan(y) ? kNan : flushed(static_cast<float>(y)); }

std::uint32_t bits_of_bf16(float x) { return std::isnan(x) ? 0x7fffu : bf16(x).bits; }

}  // namespace

float exp2_approx(float x) { return canonical(std::exp2(static_cast<double>(flushed(x)))); }

float log2_approx(float x) {
  x = flushed(x);
  if (x == 0) return -kInfinity;
  return x < 0 ? kNan : canonical(std::log2(static_cast<double>(x)));
}

float rcp_approx(float x) {
  x = flushed(x);
  return x == 0 ? std::copysign(kInfinity, x) : canonical(1 / static_cast<double>(x));
}

float rsqrt_approx(float x) {
  x = flushed(x);
  if (x == 0) return std::copysign(kInfinity, x);
  return x < 0 ? kNan : canonical(1 / std::sqrt(static_cast<double>(x)));
}

std::uint32_t pack_bf16(float low, float high) { return bits_of_bf16(low) | bits_of_bf16(high) << 16; }

}  // namespace nsa::cuda
