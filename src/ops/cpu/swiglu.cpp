// SwiGLU: y = silu(gate) * up, element-wise, bound by memory.
#include "core/parallel.h"
#include "ops/cpu/grain.h"
#include "ops/ops.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/cpu/swiglu.cpp"
#include <hwy/foreach_target.h>

#include "ops/cpu/row-inl.h"

HWY_BEFORE_NAMESPACE();
namespace nsa {
namespace HWY_NAMESPACE {
namespace {

void swiglu_piece(float* y, const float* gate, const float* up, std::int64_t n) {
  for_row(n, [&](auto at, std::int64_t i) HWY_ATTR {
    const TileVec g = at.load(gate + i);
    at.store(hn::Mul(hn::Mul(g, sigmoid(g)), at.load(up + i)), y + i);
  });
}

// silu'(g) = s + g s (1 - s). Everything of an element is read before it is written: d_gate may be gate, d_up may be
// up.
void swiglu_backward_piece(float* d_gate, float* d_up, const float* dy, const float* gate, const float* up,
                           std::int64_t n) {
  const TileVec one = row_set(1.0f);
  for_row(n, [&](auto at, std::int64_t i) HWY_ATTR {
    const TileVec g = at.load(gate + i), u = at.load(up + i), dyi = at.load(dy + i);
    const TileVec s = sigmoid(g), silu = hn::Mul(g, s);
    at.store(hn::Mul(dyi, silu), d_up + i);
    at.store(hn::Mul(hn::Mul(dyi, u), hn::MulAdd(silu, hn::Sub(one, s), s)), d_gate + i);
  });
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace nsa
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace nsa {
HWY_EXPORT(swiglu_piece);
HWY_EXPORT(swiglu_backward_piece);

namespace cpu {

void swiglu_forward(Device& dev, Out y, In gate, In up) {
  if (dev.planning()) return;
  float* yp = y.raw<float>();
  const float *gp = gate.raw<float>(), *up_p = up.raw<float>();
  parallel_ranges(dev.threads, y.numel(), kPiece, [&](std::int64_t begin, std::int64_t end, int) {
    HWY_DYNAMIC_DISPATCH(swiglu_piece)(yp + begin, gp + begin, up_p + begin, end - begin);
  });
}

void swiglu_backward(Device& dev, Out d_gate, Out d_up, In dy, In gate, In up) {
  if (dev.planning()) return;
  float *dgp = d_gate.raw<float>(), *dup = d_up.raw<float>();
  const float *dyp = dy.raw<float>(), *gp = gate.raw<float>(), *up_p = up.raw<float>();
  parallel_ranges(dev.threads, dy.numel(), kPiece, [&](std::int64_t begin, std::int64_t end, int) {
    HWY_DYNAMIC_DISPATCH(swiglu_backward_piece)
    (dgp + begin, dup + begin, dyp + begin, gp + begin, up_p + begin, end - begin);
  });
}

}  // namespace cpu
}  // namespace nsa
#endif
