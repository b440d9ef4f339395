// AdamW in one pass over the slabs w, m, v, grad (and the bf16 copy of w): 28 (30) bytes per parameter, bound by
// memory. A piece of work is a range of one parameter, or of neighbours with the same decay. No reduction: nothing
// depends on the number of threads.
#include <algorithm>

#include "core/parallel.h"
#include "ops/cpu/grain.h"
#include "ops/ops.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/cpu/adamw.cpp"
#include <hwy/foreach_target.h>

#include "ops/cpu/row-inl.h"

HWY_BEFORE_NAMESPACE();
namespace nsa {
namespace HWY_NAMESPACE {
namespace {

template <bool kCopy>
HWY_INLINE void adamw_range(float* w, float* m, float* v, bf16* copy, const float* grad, std::int64_t n,
                            float weight_decay, const AdamWStep& step) {
  const TileVec beta1 = row_set(step.beta1), beta2 = row_set(step.beta2), rest1 = row_set(step.rest1),
                rest2 = row_set(step.rest2);
  const TileVec grad_scale = row_set(step.grad_scale), m_scale = row_set(step.m_scale), v_scale = row_set(step.v_scale);
  const TileVec lr = row_set(step.lr), eps = row_set(step.eps), decay = row_set(weight_decay);
  for_row(n, [&](auto at, std::int64_t i) HWY_ATTR {
    const TileVec g = hn::Mul(grad_scale, at.load(grad + i)), w_old = at.load(w + i);
    const TileVec m_new = hn::MulAdd(beta1, at.load(m + i), hn::Mul(rest1, g));
    const TileVec v_new = hn::MulAdd(beta2, at.load(v + i), hn::Mul(hn::Mul(rest2, g), g));
    at.store(m_new, m + i);
    at.store(v_new, v + i);
    const TileVec update = hn::Div(hn::Mul(m_new, m_scale), hn::Add(hn::Sqrt(hn::Mul(v_new, v_scale)), eps));
    const TileVec w_new = hn::NegMulAdd(lr, hn::MulAdd(decay, w_old, update), w_old);
    at.store(w_new, w + i);
    if constexpr (kCopy) at.store(w_new, copy + i);
  });
}

void adamw_piece(float* w, float* m, float* v, bf16* copy, const float* grad, std::int64_t n, float weight_decay,
                 const AdamWStep& step) {
  if (copy) {
    adamw_range<true>(w, m, v, copy, grad, n, weight_decay, step);
  } else {
    adamw_range<false>(w, m, v, copy, grad, n, weight_decay, step);
  }
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace nsa
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace nsa {
HWY_EXPORT(adamw_piece);

namespace cpu {

void adamw(Device& dev, InOut w, InOut m, InOut v, Out copy, In grad, In ranges, const AdamWStep& step) {
  if (dev.planning()) return;
  float *wp = w.raw<float>(), *mp = m.raw<float>(), *vp = v.raw<float>();
  bf16* cp = copy ? copy.raw<bf16>() : nullptr;
  const float* gp = grad.raw<float>();
  const std::int32_t* range = ranges.raw<std::int32_t>();
  parallel_ranges(dev.threads, w.numel(), kPiece, [&](std::int64_t begin, std::int64_t end, int) {
    const auto last_of = [&](std::int64_t r) { return range[2 * r] * kAdamWRange; };
    std::int64_t r = 0;
    while (last_of(r) <= begin) ++r;
    for (std::int64_t i = begin; i < end; ++r) {
      const std::int64_t stop = std::min(end, last_of(r));
      HWY_DYNAMIC_DISPATCH(adamw_piece)
      (wp + i, mp + i, vp + i, cp ? cp + i : nullptr, gp + i, stop - i, range[2 * r + 1] ? step.weight_decay : 0.0f,
       step);
      i = stop;
    }
  });
}

}  // namespace cpu
}  // namespace nsa
#endif
