// Sum of x^2 + x: 128-bit loads, shuffles, a sum over the warps of a block, and the last block adds the others' partial
// sums in their order.
#include "defects.h"

#include "cuda/atomic.cuh"
#include "cuda/launch.cuh"
#include "cuda/shared.cuh"
#include "cuda/vector.cuh"
#include "cuda/warp.cuh"

namespace nsa::test {

using namespace nsa::cuda;

namespace {

constexpr int kThreads = 128, kWarps = kThreads / 32;

NSA_DEVICE float warp_sum(float x, Defect defect) {
  const int lane = threadIdx.x % 32;
  for (int d = 16; d; d /= 2) {
    if (defect == Defect::shuffle_in_a_branch) {
      if (lane < 16) x += __shfl_xor_sync(~0u, x, d);
    } else if (defect == Defect::shuffle_from_outside_its_mask) {
      x += lane < 16 ? __shfl_xor_sync(0x0000ffffu, x, d) : 0.0f;
    } else {
      x += __shfl_xor_sync(~0u, x, d);
    }
  }
  return x;
}

/// The block's sum, in every thread. `of_warp` is used again by the next call.
NSA_DEVICE float block_sum(float x, float* of_warp, Defect defect) {
  x = warp_sum(x, defect);
  if (threadIdx.x % 32 == 0) of_warp[threadIdx.x / 32 + (defect == Defect::static_array_overrun ? 1 : 0)] = x;
  if (defect != Defect::no_barrier_before_sum) __syncthreads();
  float sum = 0;
  for (int w = 0; w < kWarps; ++w) sum += of_warp[w];
  if (defect != Defect::no_barrier_after_sum) __syncthreads();
  return sum;
}

__global__ void reduce_kernel(Defect defect, const float* x, float* partial, unsigned* counter, float* out, int n) {
  NSA_SHARED(float, of_warp, [kWarps]);
  NSA_SHARED(float, lanes, [kWarps][32]);
  NSA_SHARED(unsigned, ticket, [1]);
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  if (defect == Defect::lane_gone_before_shuffle && lane == 31) return;
  if (defect == Defect::signal_never_given && blockIdx.x == 0) wait_at_least(counter, gridDim.x + 1);

  float sum = 0, plain = 0;
  const int shift = defect == Defect::misaligned_vector ? 1 : 0,
            end = defect == Defect::device_array_overrun ? n + 4 : n;
  for (int i = (blockIdx.x * kThreads + threadIdx.x) * 4; i + 3 < end; i += gridDim.x * kThreads * 4) {
    float v[4];
    load_floats<4>(v, x + i + (i + 4 + shift < n ? shift : 0));
    for (const float e : v) sum += e * e, plain += e;
  }
  // Lanes change places: through shared memory, within the warp.
  if (defect != Defect::uninitialised_shared || lane != 3) lanes[warp][lane] = sum;
  if (defect != Defect::no_syncwarp) __syncwarp();
  sum = lanes[warp][31 - lane];

  sum = block_sum(sum, of_warp, defect);
  sum += block_sum(plain, of_warp, defect);
  if (defect == Defect::lost_update_between_blocks) {
    if (threadIdx.x == 0) *out += sum;
    return;
  }
  if (threadIdx.x == 0) {
    partial[blockIdx.x] = sum;
    *ticket =
        defect == Defect::relaxed_counter_between_blocks ? atomicAdd(counter, 1u) : atomic_add_acq_rel(counter, 1u);
  }
  __syncthreads();
  if (*ticket != gridDim.x - 1) return;
  sum = block_sum(threadIdx.x < gridDim.x ? partial[threadIdx.x] : 0.0f, of_warp, defect);
  if (threadIdx.x == 0) *out = sum;
}

}  // namespace

void run_reduce(Defect defect, const float* x, float* partial, unsigned* counter, float* out, int n, int blocks) {
  launch("reduce", reduce_kernel, blocks, kThreads, 0, nullptr, defect, x, partial, counter, out, n);
}

}  // namespace nsa::test
