// Kernels that are right, and the same kernels with one defect planted: what the emulator must find.
#pragma once

#include <cstdint>

#include "cuda/layout.cuh"

namespace nsa::test {

enum class Defect : std::uint8_t {
  none,
  // reduction (defects_reduce.cu)
  no_barrier_before_sum,
  no_barrier_after_sum,
  shuffle_in_a_branch,
  shuffle_from_outside_its_mask,
  lane_gone_before_shuffle,
  static_array_overrun,
  device_array_overrun,
  misaligned_vector,
  lost_update_between_blocks,
  relaxed_counter_between_blocks,
  uninitialised_shared,
  no_syncwarp,
  signal_never_given,
  // product with cp.async and mma.sync (defects_mma.cu)
  no_barrier_after_copy,
  no_barrier_before_refill,
  no_wait_for_copy,
  no_commit_of_copy,
  no_tail_mask,
  ldmatrix_overrun,
  ldmatrix_misaligned,
  shared_too_small,
  barrier_in_a_branch,
  // product with TMA, mbarrier and wgmma (defects_wgmma.cu)
  no_wait_for_full,
  no_wait_for_empty,
  wrong_bytes,
  wrong_parity,
  one_arrival_short,
  one_arrival_too_many,
  no_barrier_after_init,
  no_fence_after_init,
  plain_read_of_mbarrier,
  no_wgmma_fence,
  no_wgmma_wait,
  release_before_wgmma_wait,
  wrong_k_step,
  too_many_registers,
  one_warp_skips_wgmma,
  no_proxy_fence_before_store,
  no_barrier_before_store,
  store_not_waited_for,
  overwrites_stored_tile,
  named_barrier_short,
};

/// out (1) = sum over n of x^2 + x, by `blocks` blocks of 128 threads; partial (blocks), counter (1) = 0.
void run_reduce(Defect defect, const float* x, float* partial, unsigned* counter, float* out, int n, int blocks);

/// c (M, 64) f32 = a (M, K) bf16 times b (64, K)^T, any M and K a multiple of 8.
void run_mma_product(Defect defect, const std::uint16_t* a, const std::uint16_t* b, float* c, int M, int K);

/// The same with N columns, N a multiple of 64; a (M, K), b (N, K), c (M, N) as TMA sees them.
void run_wgmma_product(Defect defect, const std::uint16_t* a, const std::uint16_t* b, float* c, int M, int N, int K);

}  // namespace nsa::test
