// Loops over the elements of a row, whole vectors first, then the rest, compiled once per SIMD target like tile-inl.h.
// A loop body is written once and gets `at`, which loads and stores a whole vector or the first n lanes of one:
//
// Elements are f32 or bf16 in memory, by the pointer's type, and floats in the body:
//
//   for_row(C, [&](auto at, std::int64_t c) HWY_ATTR { at.store(hn::Mul(at.load(x + c), rstd), y + c); });
#include "ops/cpu/tile-inl.h"

#if defined(NSA_OPS_CPU_ROW_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef NSA_OPS_CPU_ROW_INL_H_
#undef NSA_OPS_CPU_ROW_INL_H_
#else
#define NSA_OPS_CPU_ROW_INL_H_
#endif

HWY_BEFORE_NAMESPACE();
namespace nsa {
namespace HWY_NAMESPACE {

struct Whole {
  template <class T>
  HWY_INLINE TileVec load(const T* p) const {
    return load_tile(p);
  }
  template <class T>
  HWY_INLINE void store(TileVec v, T* p) const {
    store_tile(v, p);
  }
};

/// The first n lanes; the others load as 0. Through a buffer, because Highway's MaskedLoad reads past the end on SSE2.
struct Part {
  std::int64_t n;
  template <class T>
  HWY_INLINE TileVec load(const T* p) const {
    HWY_ALIGN T lanes[kTileN] = {};
    for (std::int64_t i = 0; i < n; ++i) lanes[i] = p[i];
    return load_tile(lanes);
  }
  template <class T>
  HWY_INLINE void store(TileVec v, T* p) const {
    HWY_ALIGN T lanes[kTileN];
    store_tile(v, lanes);
    for (std::int64_t i = 0; i < n; ++i) p[i] = lanes[i];
  }
};

HWY_INLINE std::int64_t row_lanes() { return static_cast<std::int64_t>(hn::Lanes(TileTag())); }
HWY_INLINE TileVec row_set(float x) { return hn::Set(TileTag(), x); }

template <class F>
HWY_INLINE void for_row(std::int64_t n, F&& f) {
  const std::int64_t lanes = row_lanes();
  std::int64_t i = 0;
  for (; i + lanes <= n; i += lanes) f(Whole(), i);
  if (i < n) f(Part{n - i}, i);
}

/// Sum over the row of the vectors f returns (lanes beyond the end must come out 0). Four chains, so that latency does
/// not bound it.
template <class F>
HWY_INLINE float sum_row(std::int64_t n, F&& f) {
  const TileTag d;
  const std::int64_t lanes = row_lanes();
  TileVec a = hn::Zero(d), b = a, c = a, e = a;
  std::int64_t i = 0;
  for (; i + 4 * lanes <= n; i += 4 * lanes) {
    a = hn::Add(a, f(Whole(), i));
    b = hn::Add(b, f(Whole(), i + lanes));
    c = hn::Add(c, f(Whole(), i + 2 * lanes));
    e = hn::Add(e, f(Whole(), i + 3 * lanes));
  }
  for (; i + lanes <= n; i += lanes) a = hn::Add(a, f(Whole(), i));
  if (i < n) b = hn::Add(b, f(Part{n - i}, i));
  return hn::GetLane(hn::SumOfLanes(d, hn::Add(hn::Add(a, b), hn::Add(c, e))));
}

/// 1 / (1 + e^-x); NaN stays NaN.
HWY_INLINE TileVec sigmoid(TileVec x) {
  const TileVec one = row_set(1.0f);
  return hn::Div(one, hn::Add(one, exp2_keep_nan(hn::Mul(x, row_set(-1.4426950408889634f)))));
}

}  // namespace HWY_NAMESPACE
}  // namespace nsa
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
