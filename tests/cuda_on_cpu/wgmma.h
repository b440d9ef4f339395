// wgmma: products of a warpgroup that a tensor core computes on its own, from shared memory.
#pragma once

#include <cstdint>

#include "cuda_on_cpu/warp.h"

namespace cuda_on_cpu {
struct Product {
  int n;
  bool a_mn_major, b_mn_major, a_in_registers;
};
void start_product(const Product& product, float* d, const std::uint32_t* a, std::uint64_t a_descriptor,
                   std::uint64_t b_descriptor, int accumulate, const Site& site);
void wait_for_products(std::uint32_t groups_left, const Site& site);
void set_registers(std::uint32_t n, bool increase, const Site& site);
}  // namespace cuda_on_cpu

namespace nsa::cuda {

void wgmma_fence(NSA_SITE);
void wgmma_commit(NSA_SITE);
template <int N>
void wgmma_wait(NSA_SITE) {
  cuda_on_cpu::wait_for_products(N, site);
}

template <int N, int kAMnMajor = 0, int kBMnMajor = 0>
void wgmma(float (&d)[N / 2], std::uint64_t a, std::uint64_t b, int accumulate, NSA_SITE) {
  cuda_on_cpu::start_product({N, kAMnMajor != 0, kBMnMajor != 0, false}, d, nullptr, a, b, accumulate, site);
}
template <int N, int kBMnMajor = 0>
void wgmma(float (&d)[N / 2], const std::uint32_t (&a)[4], std::uint64_t b, int accumulate, NSA_SITE) {
  cuda_on_cpu::start_product({N, false, kBMnMajor != 0, true}, d, a, 0, b, accumulate, site);
}

template <int M>
void keep_registers(float (&)[M]) {}
template <int M>
void keep_registers(std::uint32_t (&)[M]) {}

template <int N>
void registers_decrease(NSA_SITE) {
  static_assert(N % 8 == 0 && N >= 24 && N <= 256);
  cuda_on_cpu::set_registers(N, false, site);
}
template <int N>
void registers_increase(NSA_SITE) {
  static_assert(N % 8 == 0 && N >= 24 && N <= 256);
  cuda_on_cpu::set_registers(N, true, site);
}

}  // namespace nsa::cuda
