// RMSNorm over the last dim, forward (with the residual add in front or without) and backward.
// A warp takes a row; dw is summed over fixed chunks of rows, a thread takes some columns, and the chunks are added in
// order. Bytes: forward x twice (the second time from L1) and y once; backward dy and x twice, dx once. 4 FLOPs a byte
// or less: bound by memory. Deterministic; no result depends on the GPU.
#include "ops/cuda/columns.cuh"
#include "ops/cuda/rows.cuh"
#include "ops/ops.h"

namespace nsa::cuda {

namespace {

/// y = w x rstd; with kSum, x = a + b is stored first, rounded, and taken from there. `sum` may be `a`: a lane reads
/// only what it wrote.
template <class T, int W, bool kSum>
__global__ void __launch_bounds__(kRowThreads) rmsnorm_kernel(T* y, float* rstd, T* sum, const T* a, const T* b,
                                                              const T* w, std::int64_t N, std::int64_t C, float eps) {
  const std::int64_t n = my_row();
  if (n >= N) return;
  const T* x_n = kSum ? sum + n * C : a + n * C;
  float squares = 0;
  for_row<W>(C, [&](std::int64_t c) {
    float x[W];
    if constexpr (kSum) {
      float other[W];
      load_floats<W>(x, a + n * C + c);
      load_floats<W>(other, b + n * C + c);
      for (int i = 0; i < W; ++i) x[i] += other[i];
      store_floats<W>(sum + n * C + c, x);
    }
    load_floats<W>(x, x_n + c);
    for (int i = 0; i < W; ++i) squares += x[i] * x[i];
  });
  const float scale = 1.0f / sqrtf(warp_sum(squares) / static_cast<float>(C) + eps);
  if (threadIdx.x % 32 == 0) rstd[n] = scale;
  for_row<W>(C, [&](std::int64_t c) {
    float x[W], g[W];
    load_floats<W>(x, x_n + c);
    load_floats<W>(g, w + c);
    for (int i = 0; i < W; ++i) x[i] = g[i] * (x[i] * scale);
    store_floats<W>(y + n * C + c, x);
  });
}

/// dx [+]= rstd (w dy - xhat mean(w dy xhat)). dx may be dy: a lane writes what it has read.
template <class T, int W, bool kAdd>
__global__ void __launch_bounds__(kRowThreads)
    rmsnorm_dx_kernel(T* dx, const T* dy, const T* x, const T* w, const float* rstd, std::int64_t N, std::int64_t C) {
  const std::int64_t n = my_row();
  if (n >= N) return;
  float dot = 0;
  for_row<W>(C, [&](std::int64_t c) {
    float d[W], v[W], g[W];
    load_floats<W>(d, dy + n * C + c);
    load_floats<W>(v, x + n * C + c);
    load_floats<W>(g, w + c);
    for (int i = 0; i < W; ++i) dot += g[i] * d[i] * v[i];
  });
  const float scale = rstd[n], back = -warp_sum(dot) * scale * scale * scale / static_cast<float>(C);
  for_row<W>(C, [&](std::int64_t c) {
    float d[W], v[W], g[W];
    load_floats<W>(d, dy + n * C + c);
    load_floats<W>(v, x + n * C + c);
    load_floats<W>(g, w + c);
    for (int i = 0; i < W; ++i) d[i] = v[i] * back + g[i] * d[i] * scale;
    if constexpr (kAdd) {
      load_floats<W>(v, dx + n * C + c);
      for (int i = 0; i < W; ++i) d[i] += v[i];
    }
    store_floats<W>(dx + n * C + c, d);
  });
}

/// What one row adds to dw: dy x rstd.
template <class T>
struct DwTerm {
  const T *dy, *x;
  const float* rstd;
  std::int64_t C;
  template <int W>
  NSA_DEVICE void add(float (&sum)[W], std::int64_t n, std::int64_t c) const {
    float d[W], v[W];
    load_floats<W>(d, dy + n * C + c);
    load_floats<W>(v, x + n * C + c);
    for (int i = 0; i < W; ++i) sum[i] += d[i] * (v[i] * rstd[n]);
  }
};

template <class T, bool kSum>
void forward(Out y, Saved rstd, Out sum, In a, In b, In w, float eps) {
  const std::int64_t N = a.dim(0), C = a.dim(1);
  T *yp = y.raw<T>(), *sp = kSum ? sum.raw<T>() : nullptr;
  const T *ap = a.raw<T>(), *bp = kSum ? b.raw<T>() : nullptr, *wp = w.raw<T>();
  const auto run = [&]<int W>() {
    launch("rmsnorm_forward", rmsnorm_kernel<T, W, kSum>, blocks_of_rows(N), kRowThreads, 0, nullptr, yp,
           rstd.raw<float>(), sp, ap, bp, wp, N, C, eps);
  };
  if (aligned_for_packs<T>(C, yp, sp, ap, bp, wp))
    run.template operator()<Pack<T>::kSize>();
  else
    run.template operator()<1>();
}

template <class T, bool kAdd>
void backward_input(Out dx, In dy, In x, In w, In rstd) {
  const std::int64_t N = x.dim(0), C = x.dim(1);
  const auto run = [&]<int W>() {
    launch("rmsnorm_backward", rmsnorm_dx_kernel<T, W, kAdd>, blocks_of_rows(N), kRowThreads, 0, nullptr, dx.raw<T>(),
           dy.raw<T>(), x.raw<T>(), w.raw<T>(), rstd.raw<float>(), N, C);
  };
  if (aligned_for_packs<T>(C, dx.raw<T>(), dy.raw<T>(), x.raw<T>(), w.raw<T>()))
    run.template operator()<Pack<T>::kSize>();
  else
    run.template operator()<1>();
}

}  // namespace

void rmsnorm_forward(Device& dev, Out y, Saved rstd, In x, In w, float eps) {
  if (dev.planning()) return;
  dispatch_type(x.dtype, [&]<class T>() { forward<T, false>(y, rstd, {}, x, {}, w, eps); });
}

void add_rmsnorm_forward(Device& dev, Out sum, Out y, Saved rstd, In a, In b, In w, float eps) {
  if (dev.planning()) return;
  dispatch_type(a.dtype, [&]<class T>() { forward<T, true>(y, rstd, sum, a, b, w, eps); });
}

void rmsnorm_backward(Device& dev, Out dx, InOut dw, In dy, In x, In w, In rstd, Write mode) {
  const std::int64_t N = x.dim(0), C = x.dim(1);
  ArenaScope scope(dev.work);
  const Tensor partial = dev.scratch({chunks_of_rows(N), C});
  if (dev.planning()) return;
  dispatch_type(x.dtype, [&]<class T>() {
    // dw first: dx may overwrite dy.
    const DwTerm<T> term{dy.raw<T>(), x.raw<T>(), rstd.raw<float>(), C};
    add_columns<T>("rmsnorm_backward", dw.raw<float>(), partial.raw<float>(), N, C,
                   aligned_for_packs<T>(C, term.dy, term.x), term);
    if (mode == Write::add)
      backward_input<T, true>(dx, dy, x, w, rstd);
    else
      backward_input<T, false>(dx, dy, x, w, rstd);
  });
}

}  // namespace nsa::cuda
