// Elements from one type to another, on the calling thread.
#pragma once

#include <cstdint>
#include <cstring>

#include "core/dtype.h"

namespace nsa::cpu {

/// y (n) = x; from float to bf16 rounded to nearest, as bf16(float) does.
void convert(float* y, const bf16* x, std::int64_t n);
void convert(bf16* y, const float* x, std::int64_t n);
template <class T>
void convert(T* y, const T* x, std::int64_t n) {
  std::memcpy(y, x, static_cast<std::size_t>(n) * sizeof(T));
}

}  // namespace nsa::cpu
