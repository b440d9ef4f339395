// The approximate functions and conversions, with the special values of an H100; errors are smaller than the GPU's.
#pragma once

#include <cstdint>

#include "core/dtype.h"

namespace nsa::cuda {

float exp2_approx(float x);
float log2_approx(float x);
float rcp_approx(float x);
float rsqrt_approx(float x);
std::uint32_t pack_bf16(float low, float high);

}  // namespace nsa::cuda
