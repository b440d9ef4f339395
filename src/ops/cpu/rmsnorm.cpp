// RMSNorm, forward and backward. Bound by memory: each row is read from memory once (its second pass hits the
// first-level cache). dw: partial sums over fixed chunks of rows, added up in order, so it does not depend on the
// number of threads.
#include <cmath>

#include "core/parallel.h"
#include "ops/cpu/grain.h"
#include "ops/cpu/kernel.h"
#include "ops/ops.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/cpu/rmsnorm.cpp"
#include <hwy/foreach_target.h>

#include "ops/cpu/row-inl.h"

HWY_BEFORE_NAMESPACE();
namespace nsa {
namespace HWY_NAMESPACE {
namespace {

// y_n, rstd of one row; with b the row is x_n + b_n, which also goes to sum_n (sum_n may be x_n). What is normalised is
// the sum as it was stored: backward sees no other.
template <class T>
HWY_INLINE void rmsnorm_row(T* y_n, float* rstd, T* sum_n, const T* x_n, const T* b_n, const T* w, std::int64_t C,
                            float eps) {
  const float squares = b_n ? sum_row(C,
                                      [&](auto at, std::int64_t c) HWY_ATTR {
                                        at.store(hn::Add(at.load(x_n + c), at.load(b_n + c)), sum_n + c);
                                        const TileVec s = at.load(sum_n + c);
                                        return hn::Mul(s, s);
                                      })
                            : sum_row(C, [&](auto at, std::int64_t c) HWY_ATTR {
                                const TileVec s = at.load(x_n + c);
                                return hn::Mul(s, s);
                              });
  *rstd = 1.0f / std::sqrt(squares / static_cast<float>(C) + eps);
  const TileVec scale = row_set(*rstd);
  const T* in_n = b_n ? sum_n : x_n;
  for_row(C, [&](auto at, std::int64_t c)
                 HWY_ATTR { at.store(hn::Mul(at.load(w + c), hn::Mul(at.load(in_n + c), scale)), y_n + c); });
}

// dx_n [+]= rstd * (w dy - xhat mean(w dy xhat)), dw += dy xhat, with xhat = x rstd
template <bool kAdd, class T>
HWY_INLINE void rmsnorm_backward_row(T* dx_n, float* dw, const T* dy_n, const T* x_n, const T* w, float rstd,
                                     std::int64_t C) {
  const float dot = sum_row(C, [&](auto at, std::int64_t c) HWY_ATTR {
    return hn::Mul(hn::Mul(at.load(w + c), at.load(dy_n + c)), at.load(x_n + c));
  });
  const TileVec scale = row_set(rstd), back = row_set(-dot * rstd * rstd * rstd / static_cast<float>(C));
  for_row(C, [&](auto at, std::int64_t c) HWY_ATTR {
    const TileVec dy = at.load(dy_n + c), x = at.load(x_n + c);
    at.store(hn::MulAdd(dy, hn::Mul(x, scale), at.load(dw + c)), dw + c);
    const TileVec dx = hn::MulAdd(x, back, hn::Mul(hn::Mul(at.load(w + c), dy), scale));
    at.store(kAdd ? hn::Add(at.load(dx_n + c), dx) : dx, dx_n + c);
  });
}

template <class T>
HWY_INLINE void rmsnorm_backward_rows(T* dx, float* dw, const T* dy, const T* x, const T* w, const float* rstd,
                                      std::int64_t begin, std::int64_t end, std::int64_t C, Write mode) {
  for (std::int64_t n = begin; n < end; ++n) {
    if (mode == Write::add) {
      rmsnorm_backward_row<true>(dx + n * C, dw, dy + n * C, x + n * C, w, rstd[n], C);
    } else {
      rmsnorm_backward_row<false>(dx + n * C, dw, dy + n * C, x + n * C, w, rstd[n], C);
    }
  }
}

void rmsnorm_row_f32(float* y_n, float* rstd, float* sum_n, const float* x_n, const float* b_n, const float* w,
                     std::int64_t C, float eps) {
  rmsnorm_row(y_n, rstd, sum_n, x_n, b_n, w, C, eps);
}
void rmsnorm_row_bf16(bf16* y_n, float* rstd, bf16* sum_n, const bf16* x_n, const bf16* b_n, const bf16* w,
                      std::int64_t C, float eps) {
  rmsnorm_row(y_n, rstd, sum_n, x_n, b_n, w, C, eps);
}
void rmsnorm_backward_rows_f32(float* dx, float* dw, const float* dy, const float* x, const float* w, const float* rstd,
                               std::int64_t begin, std::int64_t end, std::int64_t C, Write mode) {
  rmsnorm_backward_rows(dx, dw, dy, x, w, rstd, begin, end, C, mode);
}
void rmsnorm_backward_rows_bf16(bf16* dx, float* dw, const bf16* dy, const bf16* x, const bf16* w, const float* rstd,
                                std::int64_t begin, std::int64_t end, std::int64_t C, Write mode) {
  rmsnorm_backward_rows(dx, dw, dy, x, w, rstd, begin, end, C, mode);
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace nsa
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace nsa {
HWY_EXPORT(rmsnorm_row_f32);
HWY_EXPORT(rmsnorm_row_bf16);
HWY_EXPORT(rmsnorm_backward_rows_f32);
HWY_EXPORT(rmsnorm_backward_rows_bf16);

namespace cpu {

void rmsnorm_forward(Device& dev, Out y, Saved rstd, In x, In w, float eps) {
  if (dev.planning()) return;
  const std::int64_t N = x.dim(0), C = x.dim(1);
  float* rp = rstd.raw<float>();
  dispatch_type(x.dtype, [&]<class T>() {
    T* yp = y.raw<T>();
    const T *xp = x.raw<T>(), *wp = w.raw<T>();
    parallel_ranges(dev.threads, N, rows_per_piece(C), [&](std::int64_t begin, std::int64_t end, int) {
      for (std::int64_t n = begin; n < end; ++n)
        NSA_KERNEL(T, rmsnorm_row)(yp + n * C, rp + n, nullptr, xp + n * C, nullptr, wp, C, eps);
    });
  });
}

void add_rmsnorm_forward(Device& dev, Out sum, Out y, Saved rstd, In a, In b, In w, float eps) {
  if (dev.planning()) return;
  const std::int64_t N = a.dim(0), C = a.dim(1);
  float* rp = rstd.raw<float>();
  dispatch_type(a.dtype, [&]<class T>() {
    T *sp = sum.raw<T>(), *yp = y.raw<T>();
    const T *ap = a.raw<T>(), *bp = b.raw<T>(), *wp = w.raw<T>();
    parallel_ranges(dev.threads, N, rows_per_piece(C), [&](std::int64_t begin, std::int64_t end, int) {
      for (std::int64_t n = begin; n < end; ++n)
        NSA_KERNEL(T, rmsnorm_row)(yp + n * C, rp + n, sp + n * C, ap + n * C, bp + n * C, wp, C, eps);
    });
  });
}

void rmsnorm_backward(Device& dev, Out dx, InOut dw, In dy, In x, In w, In rstd, Write mode) {
  const std::int64_t N = x.dim(0), C = x.dim(1);
  const std::int64_t rows = std::max(rows_per_piece(C), (N + 255) / 256);  // at most 256 chunks of rows
  const std::int64_t chunks = (N + rows - 1) / rows;
  ArenaScope scope(dev.work);
  const Tensor partial = dev.scratch({chunks, C});
  if (dev.planning()) return;
  float *dwp = dw.raw<float>(), *pp = partial.raw<float>();
  const float* rp = rstd.raw<float>();
  dispatch_type(x.dtype, [&]<class T>() {
    T* dxp = dx.raw<T>();
    const T *dyp = dy.raw<T>(), *xp = x.raw<T>(), *wp = w.raw<T>();
    parallel_ranges(dev.threads, N, rows, [&](std::int64_t begin, std::int64_t end, int) {
      float* dw_chunk = pp + begin / rows * C;
      std::fill_n(dw_chunk, C, 0.0f);
      NSA_KERNEL(T, rmsnorm_backward_rows)(dxp, dw_chunk, dyp, xp, wp, rp, begin, end, C, mode);
    });
  });
  parallel_ranges(dev.threads, C, std::max<std::int64_t>(16, rows_per_piece(chunks)),
                  [&](std::int64_t begin, std::int64_t end, int) {
                    for (std::int64_t i = 0; i < chunks; ++i)
                      for (std::int64_t c = begin; c < end; ++c) dwp[c] += pp[i * C + c];
                  });
}

}  // namespace cpu
}  // namespace nsa
#endif
