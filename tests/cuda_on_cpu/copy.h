// cp.async: copies of 4, 8 or 16 bytes that a thread starts and waits for in groups.
#pragma once

#include <cstdint>

#include "cuda_on_cpu/mbarrier.h"

namespace cuda_on_cpu {
void start_copy(void* to, const void* from, std::uint32_t bytes, std::uint32_t from_bytes, const Site& site);
void wait_for_copies(std::uint32_t groups_left);
}  // namespace cuda_on_cpu

namespace nsa::cuda {

template <int N>
void cp_async(void* to, const void* from, std::uint32_t from_bytes = N, NSA_SITE) {
  static_assert(N == 4 || N == 8 || N == 16);
  cuda_on_cpu::start_copy(to, from, N, from_bytes, site);
}
void cp_async_commit();
template <int N>
void cp_async_wait() {
  cuda_on_cpu::wait_for_copies(N);
}
void cp_async_arrive(Mbarrier* b, NSA_SITE);

}  // namespace nsa::cuda
