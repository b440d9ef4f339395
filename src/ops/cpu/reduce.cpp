// fill, copy (which also converts), add and the two sums of f32. A sum is taken in double over fixed chunks, and the
// chunks are added in order.
#include <algorithm>

#include "core/parallel.h"
#include "ops/cpu/convert.h"
#include "ops/cpu/grain.h"
#include "ops/cpu/kernel.h"
#include "ops/ops.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/cpu/reduce.cpp"
#include <hwy/foreach_target.h>

#include "ops/cpu/row-inl.h"

HWY_BEFORE_NAMESPACE();
namespace nsa {
namespace HWY_NAMESPACE {
namespace {

template <class T>
HWY_INLINE void add_piece(T* y, const T* x, std::int64_t n) {
  for_row(n, [&](auto at, std::int64_t i) HWY_ATTR { at.store(hn::Add(at.load(y + i), at.load(x + i)), y + i); });
}
void add_piece_f32(float* y, const float* x, std::int64_t n) { add_piece(y, x, n); }
void add_piece_bf16(bf16* y, const bf16* x, std::int64_t n) { add_piece(y, x, n); }

// sum of f(x) in double, four chains
template <bool kSquare>
HWY_INLINE double sum_chunk(const float* x, std::int64_t n) {
#if HWY_HAVE_FLOAT64
  const hn::CappedTag<double, 8> d;
  const hn::Rebind<float, decltype(d)> half;
  using Vec = hn::Vec<decltype(d)>;
  const std::int64_t lanes = static_cast<std::int64_t>(hn::Lanes(d));
  const auto step = [&](Vec sum, std::int64_t i) HWY_ATTR {
    const Vec v = hn::PromoteTo(d, hn::LoadU(half, x + i));
    return kSquare ? hn::MulAdd(v, v, sum) : hn::Add(sum, v);
  };
  Vec a = hn::Zero(d), b = a, c = a, e = a;
  std::int64_t i = 0;
  for (; i + 4 * lanes <= n; i += 4 * lanes) {
    a = step(a, i);
    b = step(b, i + lanes);
    c = step(c, i + 2 * lanes);
    e = step(e, i + 3 * lanes);
  }
  double sum = hn::GetLane(hn::SumOfLanes(d, hn::Add(hn::Add(a, b), hn::Add(c, e))));
#else
  double sum = 0;
  std::int64_t i = 0;
#endif
  for (; i < n; ++i) sum += kSquare ? static_cast<double>(x[i]) * x[i] : x[i];
  return sum;
}

double sum_piece(const float* x, std::int64_t n) { return sum_chunk<false>(x, n); }
double sum_squares_piece(const float* x, std::int64_t n) { return sum_chunk<true>(x, n); }

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace nsa
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace nsa {
HWY_EXPORT(add_piece_f32);
HWY_EXPORT(add_piece_bf16);
HWY_EXPORT(sum_piece);
HWY_EXPORT(sum_squares_piece);

namespace cpu {
namespace {

// result = [result +] sum over chunks of piece(chunk)
template <class F>
void reduce(Device& dev, Out result, In x, Write mode, F&& piece) {
  const std::int64_t n = x.numel(), chunks = (n + kPiece - 1) / kPiece;
  ArenaScope scope(dev.work);
  const Tensor partial = dev.scratch({chunks, 2});  // one double each
  if (dev.planning()) return;
  double* pp = static_cast<double*>(partial.raw_bytes());
  const float* xp = x.raw<float>();
  parallel_ranges(dev.threads, n, kPiece, [&](std::int64_t begin, std::int64_t end, int) {
    pp[begin / kPiece] = piece(xp + begin, end - begin);
  });
  double total = 0;
  for (std::int64_t i = 0; i < chunks; ++i) total += pp[i];
  float& sum = *result.raw<float>();
  sum = mode == Write::add ? sum + static_cast<float>(total) : static_cast<float>(total);
}

}  // namespace

void fill(Device& dev, Out y, float value) {
  if (dev.planning()) return;
  dispatch_type(y.dtype, [&]<class T>() {
    T* yp = y.raw<T>();
    parallel_ranges(dev.threads, y.numel(), kPiece, [&](std::int64_t begin, std::int64_t end, int) {
      std::fill(yp + begin, yp + end, static_cast<T>(value));
    });
  });
}

void copy(Device& dev, Out y, In x) {
  if (dev.planning()) return;
  dispatch_type(y.dtype, [&]<class To>() {
    dispatch_type(x.dtype, [&]<class From>() {
      To* yp = y.raw<To>();
      const From* xp = x.raw<From>();
      parallel_ranges(dev.threads, x.numel(), kPiece,
                      [&](std::int64_t begin, std::int64_t end, int) { convert(yp + begin, xp + begin, end - begin); });
    });
  });
}

void add(Device& dev, InOut y, In x) {
  if (dev.planning()) return;
  dispatch_type(y.dtype, [&]<class T>() {
    T* yp = y.raw<T>();
    const T* xp = x.raw<T>();
    parallel_ranges(dev.threads, x.numel(), kPiece, [&](std::int64_t begin, std::int64_t end, int) {
      NSA_KERNEL(T, add_piece)(yp + begin, xp + begin, end - begin);
    });
  });
}

void sum_squares(Device& dev, Out result, In x, Write mode) {
  reduce(dev, result, x, mode,
         [](const float* p, std::int64_t n) { return HWY_DYNAMIC_DISPATCH(sum_squares_piece)(p, n); });
}

void sum(Device& dev, Out result, In x, Write mode) {
  reduce(dev, result, x, mode, [](const float* p, std::int64_t n) { return HWY_DYNAMIC_DISPATCH(sum_piece)(p, n); });
}

void sum_rows(Device& dev, Out result, In x) {
  const std::int64_t N = x.dim(0), C = x.dim(1), rows = rows_per_piece(C), chunks = (N + rows - 1) / rows;
  ArenaScope scope(dev.work);
  const Tensor partial = dev.scratch({chunks, C, 2});  // one double each
  if (dev.planning()) return;
  double* pp = static_cast<double*>(partial.raw_bytes());
  const float* xp = x.raw<float>();
  parallel_ranges(dev.threads, N, rows, [&](std::int64_t begin, std::int64_t end, int) {
    double* sums = pp + begin / rows * C;
    std::fill_n(sums, C, 0.0);
    for (std::int64_t n = begin; n < end; ++n)
      for (std::int64_t c = 0; c < C; ++c) sums[c] += static_cast<double>(xp[n * C + c]);
  });
  float* to = result.raw<float>();
  for (std::int64_t c = 0; c < C; ++c) {
    double total = 0;
    for (std::int64_t i = 0; i < chunks; ++i) total += pp[i * C + c];
    to[c] = static_cast<float>(total);
  }
}

}  // namespace cpu
}  // namespace nsa
#endif
