// Kernels over rows of C elements: one warp takes a row, lane l its elements l*W .. l*W + W - 1 of every 32 * W.
#pragma once

#include "cuda/launch.cuh"
#include "cuda/vector.cuh"
#include "cuda/warp.cuh"

namespace nsa::cuda {

constexpr int kRowThreads = 128, kRowsPerBlock = kRowThreads / 32;

/// The warp's row; it may lie beyond the last one.
NSA_DEVICE std::int64_t my_row() { return std::int64_t{blockIdx.x} * kRowsPerBlock + threadIdx.x / 32; }

inline unsigned blocks_of_rows(std::int64_t rows) {
  return static_cast<unsigned>((rows + kRowsPerBlock - 1) / kRowsPerBlock);
}

/// The sum over the lanes, in every lane: the same order always.
NSA_DEVICE float warp_sum(float x) {
#pragma unroll
  for (int d = 16; d; d /= 2) x += __shfl_xor_sync(~0u, x, d);
  return x;
}

/// f(c) for the first of every W elements that this lane owns.
template <int W, class F>
NSA_DEVICE void for_row(std::int64_t C, F&& f) {
  for (std::int64_t c = threadIdx.x % 32 * W; c < C; c += 32 * W) f(c);
}

}  // namespace nsa::cuda
