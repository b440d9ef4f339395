// fill, copy (which also converts), add, and the sums of f32. A sum is taken in double over fixed chunks, a block each,
// and the chunks' sums are added in order by one block: the same bits on every GPU. Bound by memory.
#include "cuda/shared.cuh"
#include "ops/cuda/columns.cuh"
#include "ops/cuda/elements.cuh"
#include "ops/cuda/rows.cuh"
#include "ops/ops.h"

namespace nsa::cuda {

namespace {

template <class T>
struct Fill {
  T* y;
  float value;
  template <int W>
  NSA_DEVICE void at(std::int64_t i) const {
    float v[W];
    for (int k = 0; k < W; ++k) v[k] = value;
    store_floats<W>(y + i, v);
  }
};

template <class To, class From>
struct Copy {
  To* y;
  const From* x;
  template <int W>
  NSA_DEVICE void at(std::int64_t i) const {
    float v[W];
    load_floats<W>(v, x + i);
    store_floats<W>(y + i, v);
  }
};

template <class T>
struct Add {
  T* y;
  const T* x;
  template <int W>
  NSA_DEVICE void at(std::int64_t i) const {
    float v[W], a[W];
    load_floats<W>(v, y + i);
    load_floats<W>(a, x + i);
    for (int k = 0; k < W; ++k) v[k] += a[k];
    store_floats<W>(y + i, v);
  }
};

constexpr int kSumThreads = 256;
constexpr std::int64_t kSumChunk = 16384;

/// The block's sum, in thread 0: lanes in pairs, then warps in order.
NSA_DEVICE double block_sum(double x, double* of_warp) {
#pragma unroll
  for (int d = 16; d; d /= 2) x += __shfl_xor_sync(~0u, x, d);
  if (threadIdx.x % 32 == 0) of_warp[threadIdx.x / 32] = x;
  __syncthreads();
  x = 0;
  for (int w = 0; w < kSumThreads / 32; ++w) x += of_warp[w];
  return x;
}

template <bool kSquares>
__global__ void __launch_bounds__(kSumThreads) sum_chunk_kernel(double* partial, const float* x, std::int64_t n) {
  NSA_SHARED(double, of_warp, [kSumThreads / 32]);
  const std::int64_t begin = blockIdx.x * kSumChunk, end = begin + kSumChunk < n ? begin + kSumChunk : n;
  double sum = 0;
  for (std::int64_t i = begin + threadIdx.x; i < end; i += kSumThreads) {
    const double v = x[i];
    sum += kSquares ? v * v : v;
  }
  sum = block_sum(sum, of_warp);
  if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

template <bool kAdd>
__global__ void __launch_bounds__(kSumThreads)
    add_partials_kernel(float* result, const double* partial, std::int64_t chunks) {
  NSA_SHARED(double, of_warp, [kSumThreads / 32]);
  double sum = 0;
  for (std::int64_t i = threadIdx.x; i < chunks; i += kSumThreads) sum += partial[i];
  sum = block_sum(sum, of_warp);
  if (threadIdx.x == 0) *result = kAdd ? *result + static_cast<float>(sum) : static_cast<float>(sum);
}

template <bool kSquares>
void reduce(const char* name, Device& dev, Out result, In x, Write mode) {
  const std::int64_t n = x.numel(), chunks = (n + kSumChunk - 1) / kSumChunk;
  ArenaScope scope(dev.work);
  const Tensor partial = dev.scratch({chunks, 2});  // one double each
  if (dev.planning()) return;
  auto* sums = static_cast<double*>(partial.raw_bytes());
  if (chunks) {
    launch(name, sum_chunk_kernel<kSquares>, static_cast<unsigned>(chunks), kSumThreads, 0, nullptr, sums,
           x.raw<float>(), n);
  }
  const auto kernel = mode == Write::add ? add_partials_kernel<true> : add_partials_kernel<false>;
  launch(name, kernel, 1, kSumThreads, 0, nullptr, result.raw<float>(), sums, chunks);
}

/// What row n adds to a column.
struct RowTerm {
  const float* x;
  std::int64_t C;
  template <int W>
  NSA_DEVICE void add(double (&sum)[W], std::int64_t n, std::int64_t c) const {
    float v[W];
    load_floats<W>(v, x + n * C + c);
    for (int i = 0; i < W; ++i) sum[i] += static_cast<double>(v[i]);
  }
};

}  // namespace

void fill(Device& dev, Out y, float value) {
  if (dev.planning()) return;
  dispatch_type(y.dtype, [&]<class T>() {
    launch_elements<T>("fill", y.numel(), aligned_for_packs<T>(0, y.raw<T>()), Fill<T>{y.raw<T>(), value});
  });
}

void copy(Device& dev, Out y, In x) {
  if (dev.planning()) return;
  dispatch_type(y.dtype, [&]<class To>() {
    dispatch_type(x.dtype, [&]<class From>() {
      using Narrow = std::conditional_t<(sizeof(To) < sizeof(From)), To, From>;
      launch_elements<Narrow>("copy", x.numel(), aligned_for_packs<Narrow>(0, y.raw<To>(), x.raw<From>()),
                              Copy<To, From>{y.raw<To>(), x.raw<From>()});
    });
  });
}

void add(Device& dev, InOut y, In x) {
  if (dev.planning()) return;
  dispatch_type(y.dtype, [&]<class T>() {
    launch_elements<T>("add", x.numel(), aligned_for_packs<T>(0, y.raw<T>(), x.raw<T>()),
                       Add<T>{y.raw<T>(), x.raw<T>()});
  });
}

void sum_squares(Device& dev, Out result, In x, Write mode) { reduce<true>("sum_squares", dev, result, x, mode); }
void sum(Device& dev, Out result, In x, Write mode) { reduce<false>("sum", dev, result, x, mode); }

void sum_rows(Device& dev, Out result, In x) {
  const std::int64_t N = x.dim(0), C = x.dim(1);
  ArenaScope scope(dev.work);
  const Tensor partial = dev.scratch({chunks_of_rows(N), C, 2});  // one double each
  if (dev.planning()) return;
  const RowTerm term{x.raw<float>(), C};
  auto* sums = static_cast<double*>(partial.raw_bytes());
  if (aligned_for_packs<float>(C, term.x))
    sum_columns<double, false, 4>("sum_rows", result.raw<float>(), sums, N, C, term);
  else
    sum_columns<double, false, 1>("sum_rows", result.raw<float>(), sums, N, C, term);
}

}  // namespace nsa::cuda
