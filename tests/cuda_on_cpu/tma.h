// TMA and bulk copies: what a copy engine does on its own, completing on an mbarrier or in a thread's bulk groups.
#pragma once

#include <cstdint>

#include "cuda/layout.cuh"
#include "cuda_on_cpu/mbarrier.h"

namespace nsa::cuda {

struct alignas(64) TensorMap {
  TensorShape shape;
};
/// Throws naming the rule that the shape breaks.
TensorMap make_tensor_map(const TensorShape& shape);

void bulk_load(void* to, const void* from, std::uint32_t bytes, Mbarrier* b, NSA_SITE);
void bulk_store(void* to, const void* from, std::uint32_t bytes, NSA_SITE);
void bulk_reduce_add(float* to, const float* from, std::uint32_t bytes, NSA_SITE);
void bulk_commit();

}  // namespace nsa::cuda

namespace cuda_on_cpu {
void start_tma_load(void* to, const nsa::cuda::TensorMap& map, nsa::cuda::Mbarrier* b, const int* coordinates, int rank,
                    const Site& site);
void start_tma_store(const nsa::cuda::TensorMap& map, const void* from, const int* coordinates, int rank, bool add,
                     const Site& site);
void wait_for_bulk(std::uint32_t groups_left, bool only_reads);
}  // namespace cuda_on_cpu

namespace nsa::cuda {

template <int R>
void tma_load(void* to, const TensorMap& map, Mbarrier* b, const int (&coordinates)[R], NSA_SITE) {
  cuda_on_cpu::start_tma_load(to, map, b, coordinates, R, site);
}
template <int R>
void tma_store(const TensorMap& map, const void* from, const int (&coordinates)[R], NSA_SITE) {
  cuda_on_cpu::start_tma_store(map, from, coordinates, R, false, site);
}
template <int R>
void tma_reduce_add(const TensorMap& map, const void* from, const int (&coordinates)[R], NSA_SITE) {
  cuda_on_cpu::start_tma_store(map, from, coordinates, R, true, site);
}
template <int N>
void bulk_wait() {
  cuda_on_cpu::wait_for_bulk(N, false);
}
template <int N>
void bulk_wait_read() {
  cuda_on_cpu::wait_for_bulk(N, true);
}

}  // namespace nsa::cuda
