// Matrices across a warp: ldmatrix, stmatrix, movmatrix, mma.sync.
#pragma once

#include <cstdint>

#include "cuda_on_cpu/warp.h"

namespace cuda_on_cpu {
void load_matrices(std::uint32_t* registers, int matrices, bool transposed, const void* row, const Site& site);
void store_matrices(void* row, const std::uint32_t* registers, int matrices, bool transposed, const Site& site);
}  // namespace cuda_on_cpu

namespace nsa::cuda {

template <bool kTransposed, int X>
void ldmatrix(std::uint32_t (&r)[X], const void* row, NSA_SITE) {
  static_assert(X == 1 || X == 2 || X == 4);
  cuda_on_cpu::load_matrices(r, X, kTransposed, row, site);
}
template <bool kTransposed, int X>
void stmatrix(void* row, const std::uint32_t (&r)[X], NSA_SITE) {
  static_assert(X == 1 || X == 2 || X == 4);
  cuda_on_cpu::store_matrices(row, r, X, kTransposed, site);
}
std::uint32_t movmatrix(std::uint32_t r, NSA_SITE);

void mma(float (&d)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2], NSA_SITE);

}  // namespace nsa::cuda
