// Cross-entropy over rows of V logits, a block a row. One pass takes each thread's maximum and sum of exponentials
// together, rescaling the sum where the maximum grows; the threads' pairs are joined by lane, then by warp in order.
// With the gradient a second pass replaces the logits. Bytes: V once, with the gradient twice and V written. Bound by
// memory.
#include <cfloat>

#include "cuda/shared.cuh"
#include "ops/cuda/rows.cuh"
#include "ops/ops.h"

namespace nsa::cuda {

namespace {

constexpr int kThreads = 256, kWarps = kThreads / 32;

NSA_DEVICE float exponential(float x) { return exp2_approx(x * 1.44269504f); }

/// sum = sum of exp(x - most). `most` starts at a finite number: of logits that are all -inf the sum is 0, not NaN.
struct Mass {
  float most = -FLT_MAX, sum = 0;

  template <int W>
  NSA_DEVICE void add(const float (&x)[W]) {
    float higher = most;
    for (int i = 0; i < W; ++i) higher = fmaxf(higher, x[i]);
    sum *= exponential(most - higher);
    most = higher;
    for (int i = 0; i < W; ++i) sum += exponential(x[i] - most);  // a NaN comes out here
  }
  NSA_DEVICE void join(float other_most, float other_sum) {
    const float higher = fmaxf(most, other_most);
    sum = sum * exponential(most - higher) + other_sum * exponential(other_most - higher);
    most = higher;
  }
};

/// The row's mass, in every thread.
NSA_DEVICE Mass block_mass(Mass mine, float* most_of_warp, float* sum_of_warp) {
#pragma unroll
  for (int d = 16; d; d /= 2) {
    const float most = __shfl_down_sync(~0u, mine.most, d), sum = __shfl_down_sync(~0u, mine.sum, d);
    mine.join(most, sum);
  }
  if (threadIdx.x % 32 == 0) most_of_warp[threadIdx.x / 32] = mine.most, sum_of_warp[threadIdx.x / 32] = mine.sum;
  __syncthreads();
  Mass all;
  for (int w = 0; w < kWarps; ++w) all.join(most_of_warp[w], sum_of_warp[w]);
  return all;
}

template <class T, int W, bool kGradient>
__global__ void __launch_bounds__(kThreads)
    cross_entropy_kernel(float* losses, T* logits, const std::int32_t* targets, std::int64_t V, float scale) {
  NSA_SHARED(float, most_of_warp, [kWarps]);
  NSA_SHARED(float, sum_of_warp, [kWarps]);
  NSA_SHARED(float, target_logit, [1]);
  const std::int64_t n = blockIdx.x, target = targets[n];
  T* x_n = logits + n * V;
  if (target < 0) {
    if (threadIdx.x == 0) losses[n] = 0;
    for (std::int64_t c = threadIdx.x * W; kGradient && c < V; c += kThreads * W) {
      const float zero[W] = {};
      store_floats<W>(x_n + c, zero);
    }
    return;
  }
  if (threadIdx.x == 0) *target_logit = to_float(x_n[target]);  // before anybody writes
  Mass mine;
  for (std::int64_t c = threadIdx.x * W; c < V; c += kThreads * W) {
    float x[W];
    load_floats<W>(x, x_n + c);
    mine.add(x);
  }
  const Mass all = block_mass(mine, most_of_warp, sum_of_warp);
  if (threadIdx.x == 0) losses[n] = logf(all.sum) + (all.most - *target_logit);
  if constexpr (kGradient) {
    const float inverse = 1.0f / all.sum;
    for (std::int64_t c = threadIdx.x * W; c < V; c += kThreads * W) {
      float x[W];
      load_floats<W>(x, x_n + c);
      for (int i = 0; i < W; ++i) {
        const float p = exponential(x[i] - all.most) * inverse;
        x[i] = scale * (c + i == target ? p - 1.0f : p);  // in float: near p = 1 bf16 would lose the difference
      }
      store_floats<W>(x_n + c, x);
    }
  }
}

template <bool kGradient>
void run(const char* name, Out losses, In logits, In targets, float scale) {
  const std::int64_t N = logits.dim(0), V = logits.dim(1);
  if (N == 0) return;
  dispatch_type(logits.dtype, [&]<class T>() {
    const auto start = [&]<int W>() {
      launch(name, cross_entropy_kernel<T, W, kGradient>, static_cast<unsigned>(N), kThreads, 0, nullptr,
             losses.raw<float>(), logits.raw<T>(), targets.raw<std::int32_t>(), V, scale);
    };
    if (aligned_for_packs<T>(V, logits.raw<T>()))
      start.template operator()<Pack<T>::kSize>();
    else
      start.template operator()<1>();
  });
}

}  // namespace

void cross_entropy_forward(Device& dev, Out losses, In logits, In targets) {
  if (!dev.planning()) run<false>("cross_entropy_forward", losses, logits, targets, 0);
}

void cross_entropy_forward_backward(Device& dev, Out losses, InOut logits, In targets, float scale) {
  if (!dev.planning()) run<true>("cross_entropy_forward_backward", losses, logits, targets, scale);
}

}  // namespace nsa::cuda
