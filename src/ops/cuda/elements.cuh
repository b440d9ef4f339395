// Element-wise kernels: a thread takes 16 bytes' worth of elements where all pointers allow it, else one element.
// Nothing is shared between threads, so the bits do not depend on the grid.
#pragma once

#include "cuda/launch.cuh"
#include "cuda/vector.cuh"

namespace nsa::cuda {

constexpr int kElementThreads = 256;

/// f.at<W>(i): computes elements i .. i + W - 1.
template <int W, class F>
__global__ void __launch_bounds__(kElementThreads) elements_kernel(F f, std::int64_t n) {
  const std::int64_t i = (std::int64_t{blockIdx.x} * kElementThreads + threadIdx.x) * W;
  if (i + W <= n) {
    f.template at<W>(i);
  } else {
    for (std::int64_t k = i; k < n; ++k) f.template at<1>(k);
  }
}

/// `packs`: may 16 bytes of T be accessed at once? (aligned_for_packs)
template <class T, class F>
void launch_elements(const char* name, std::int64_t n, bool packs, const F& f) {
  if (n == 0) return;
  constexpr int W = Pack<T>::kSize;
  const auto blocks = [n](int width) {
    return static_cast<unsigned>((n + kElementThreads * width - 1) / (kElementThreads * width));
  };
  if (packs)
    launch(name, elements_kernel<W, F>, blocks(W), kElementThreads, 0, nullptr, f, n);
  else
    launch(name, elements_kernel<1, F>, blocks(1), kElementThreads, 0, nullptr, f, n);
}

}  // namespace nsa::cuda
