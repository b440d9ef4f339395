// SwiGLU: y = silu(gate) * up, element-wise, bound by memory.
#include "core/parallel.h"
#include "ops/cpu/grain.h"
#include "ops/cpu/kernel.h"
#include "ops/ops.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/cpu/swiglu.cpp"
#include <hwy/foreach_target.h>

#include "ops/cpu/row-inl.h"

HWY_BEFORE_NAMESPACE();
namespace nsa {
namespace HWY_NAMESPACE {
namespace {

template <class T>
HWY_INLINE void swiglu_piece(T* y, const T* gate, const T* up, std::int64_t n) {
  for_row(n, [&](auto at, std::int64_t i) HWY_ATTR {
    const TileVec g = at.load(gate + i);
    at.store(hn::Mul(hn::Mul(g, sigmoid(g)), at.load(up + i)), y + i);
  });
}

// silu'(g) = s + g s (1 - s). Everything of an element is read before it is written: d_gate may be gate, d_up may be
// up.
template <class T>
HWY_INLINE void swiglu_backward_piece(T* d_gate, T* d_up, const T* dy, const T* gate, const T* up, std::int64_t n) {
  const TileVec one = row_set(1.0f);
  for_row(n, [&](auto at, std::int64_t i) HWY_ATTR {
    const TileVec g = at.load(gate + i), u = at.load(up + i), dyi = at.load(dy + i);
    const TileVec s = sigmoid(g), silu = hn::Mul(g, s);
    at.store(hn::Mul(dyi, silu), d_up + i);
    at.store(hn::Mul(hn::Mul(dyi, u), hn::MulAdd(silu, hn::Sub(one, s), s)), d_gate + i);
  });
}

void swiglu_piece_f32(float* y, const float* gate, const float* up, std::int64_t n) { swiglu_piece(y, gate, up, n); }
void swiglu_piece_bf16(bf16* y, const bf16* gate, const bf16* up, std::int64_t n) { swiglu_piece(y, gate, up, n); }
void swiglu_backward_piece_f32(float* d_gate, float* d_up, const float* dy, const float* gate, const float* up,
                               std::int64_t n) {
  swiglu_backward_piece(d_gate, d_up, dy, gate, up, n);
}
void swiglu_backward_piece_bf16(bf16* d_gate, bf16* d_up, const bf16* dy, const bf16* gate, const bf16* up,
                                std::int64_t n) {
  swiglu_backward_piece(d_gate, d_up, dy, gate, up, n);
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace nsa
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace nsa {
HWY_EXPORT(swiglu_piece_f32);
HWY_EXPORT(swiglu_piece_bf16);
HWY_EXPORT(swiglu_backward_piece_f32);
HWY_EXPORT(swiglu_backward_piece_bf16);

namespace cpu {

void swiglu_forward(Device& dev, Out y, In gate, In up) {
  if (dev.planning()) return;
  dispatch_type(y.dtype, [&]<class T>() {
    T* yp = y.raw<T>();
    const T *gp = gate.raw<T>(), *up_p = up.raw<T>();
    parallel_ranges(dev.threads, y.numel(), kPiece, [&](std::int64_t begin, std::int64_t end, int) {
      NSA_KERNEL(T, swiglu_piece)(yp + begin, gp + begin, up_p + begin, end - begin);
    });
  });
}

void swiglu_backward(Device& dev, Out d_gate, Out d_up, In dy, In gate, In up) {
  if (dev.planning()) return;
  dispatch_type(dy.dtype, [&]<class T>() {
    T *dgp = d_gate.raw<T>(), *dup = d_up.raw<T>();
    const T *dyp = dy.raw<T>(), *gp = gate.raw<T>(), *up_p = up.raw<T>();
    parallel_ranges(dev.threads, dy.numel(), kPiece, [&](std::int64_t begin, std::int64_t end, int) {
      NSA_KERNEL(T, swiglu_backward_piece)
      (dgp + begin, dup + begin, dyp + begin, gp + begin, up_p + begin, end - begin);
    });
  });
}

}  // namespace cpu
}  // namespace nsa
#endif
