// Embedding. Forward: a warp copies a row. Backward adds rows of the same token in the order of n, without sorting:
// token v belongs to the kSlots-th part v % kSlots, and a warp, which owns 32 * W columns of one part, walks over all
// tokens. Bytes: forward 2 rows a token; backward dy once, dw rows twice, the tokens kSlots times from L2.
// Deterministic.
#include "ops/cuda/rows.cuh"
#include "ops/ops.h"

namespace nsa::cuda {

namespace {

constexpr std::int64_t kSlots = 256;

template <class T, int W>
__global__ void __launch_bounds__(kRowThreads)
    gather_kernel(T* y, const std::int32_t* tokens, const T* w, std::int64_t N, std::int64_t C) {
  const std::int64_t n = my_row();
  if (n >= N) return;
  const std::int64_t token = tokens[n];
  for_row<W>(C, [&](std::int64_t c) {
    float v[W];
    load_floats<W>(v, w + token * C + c);
    store_floats<W>(y + n * C + c, v);
  });
}

/// Block (x, s): four warps, each with 32 * W columns of the tokens of part s.
template <class T, int W>
__global__ void __launch_bounds__(kRowThreads)
    scatter_kernel(float* dw, const T* dy, const std::int32_t* tokens, std::int64_t N, std::int64_t C) {
  const int lane = threadIdx.x % 32;
  const std::int64_t c = my_row() * 32 * W + lane * W;
  for (std::int64_t begin = 0; begin < N; begin += 32) {
    const std::int64_t n = begin + lane;
    const std::int32_t mine = n < N ? tokens[n] : -1;
    std::uint32_t hits = __ballot_sync(~0u, mine >= 0 && mine % kSlots == blockIdx.y);
    while (hits) {
      const int hit = __ffs(static_cast<int>(hits)) - 1;
      hits &= hits - 1;
      const std::int64_t token = __shfl_sync(~0u, mine, hit);
      if (c >= C) continue;
      float sum[W], add[W];
      load_floats<W>(sum, dw + token * C + c);
      load_floats<W>(add, dy + (begin + hit) * C + c);
      for (int i = 0; i < W; ++i) sum[i] += add[i];
      store_floats<W>(dw + token * C + c, sum);
    }
  }
}

}  // namespace

void embedding_forward(Device& dev, Out y, In tokens, In w) {
  if (dev.planning()) return;
  const std::int64_t N = tokens.dim(0), C = w.dim(1);
  dispatch_type(y.dtype, [&]<class T>() {
    const auto run = [&]<int W>() {
      launch("embedding_forward", gather_kernel<T, W>, blocks_of_rows(N), kRowThreads, 0, nullptr, y.raw<T>(),
             tokens.raw<std::int32_t>(), w.raw<T>(), N, C);
    };
    if (aligned_for_packs<T>(C, y.raw<T>(), w.raw<T>()))
      run.template operator()<Pack<T>::kSize>();
    else
      run.template operator()<1>();
  });
}

void embedding_backward(Device& dev, InOut dw, In dy, In tokens) {
  if (dev.planning()) return;
  const std::int64_t N = tokens.dim(0), C = dw.dim(1);
  dispatch_type(dy.dtype, [&]<class T>() {
    const auto run = [&]<int W>() {
      const dim3 blocks(blocks_of_rows((C + 32 * W - 1) / (32 * W)), kSlots);
      launch("embedding_backward", scatter_kernel<T, W>, blocks, kRowThreads, 0, nullptr, dw.raw<float>(), dy.raw<T>(),
             tokens.raw<std::int32_t>(), N, C);
    };
    if (aligned_for_packs<T>(C, dy.raw<T>(), dw.raw<float>()))
      run.template operator()<Pack<T>::kSize>();
    else
      run.template operator()<1>();
  });
}

}  // namespace nsa::cuda
