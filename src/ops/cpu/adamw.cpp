// AdamW in one pass over w, m, v, grad: 28 bytes per parameter, bound by memory.
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

void adamw_piece(float* w, float* m, float* v, const float* grad, std::int64_t n, const AdamWStep& step) {
  const TileVec beta1 = row_set(step.beta1), beta2 = row_set(step.beta2), rest1 = row_set(1.0f - step.beta1),
                rest2 = row_set(1.0f - step.beta2);
  const TileVec grad_scale = row_set(step.grad_scale), m_scale = row_set(step.m_scale), v_scale = row_set(step.v_scale);
  const TileVec lr = row_set(step.lr), eps = row_set(step.eps), decay = row_set(step.weight_decay);
  for_row(n, [&](auto at, std::int64_t i) HWY_ATTR {
    const TileVec g = hn::Mul(grad_scale, at.load(grad + i)), w_old = at.load(w + i);
    const TileVec m_new = hn::MulAdd(beta1, at.load(m + i), hn::Mul(rest1, g));
    const TileVec v_new = hn::MulAdd(beta2, at.load(v + i), hn::Mul(hn::Mul(rest2, g), g));
    at.store(m_new, m + i);
    at.store(v_new, v + i);
    const TileVec update = hn::Div(hn::Mul(m_new, m_scale), hn::Add(hn::Sqrt(hn::Mul(v_new, v_scale)), eps));
    at.store(hn::NegMulAdd(lr, hn::MulAdd(decay, w_old, update), w_old), w + i);
  });
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace nsa
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace nsa {
HWY_EXPORT(adamw_piece);

namespace cpu {

void adamw(Device& dev, InOut w, InOut m, InOut v, In grad, const AdamWStep& step) {
  if (dev.planning()) return;
  float *wp = w.f32(), *mp = m.f32(), *vp = v.f32();
  const float* gp = grad.f32();
  parallel_ranges(dev.threads, w.numel(), kPiece, [&](std::int64_t begin, std::int64_t end, int) {
    HWY_DYNAMIC_DISPATCH(adamw_piece)(wp + begin, mp + begin, vp + begin, gp + begin, end - begin, step);
  });
}

}  // namespace cpu
}  // namespace nsa
#endif
