// Gates (Eq. 5): o = sum over the branches of sigmoid(logit_b) o_b, one gate per (token, head, branch). Bound by
// memory: forward reads 3 and writes 1 vector of Dv per (n,h), backward reads 4 and writes 3. A piece is some
// rows (n,h); each row is one thread's, so there is no reduction across threads.
#include "core/parallel.h"
#include "nsa/ops.h"
#include "ops/cpu/grain.h"
#include "ops/cpu/kernel.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "nsa/cpu/gate.cpp"
#include <hwy/foreach_target.h>

#include "ops/cpu/row-inl.h"

HWY_BEFORE_NAMESPACE();
namespace nsa {
namespace HWY_NAMESPACE {
namespace {

template <class T>
HWY_INLINE void gate_piece(T* o, float* gates, const T* o_cmp, const T* o_slc, const T* o_win, std::int64_t rows,
                           std::int64_t Dv) {
  for_row(rows * 3, [&](auto at, std::int64_t i) HWY_ATTR { at.store(sigmoid(at.load(gates + i)), gates + i); });
  for (std::int64_t row = 0; row < rows; ++row, gates += 3, o += Dv, o_cmp += Dv, o_slc += Dv, o_win += Dv) {
    const TileVec g_cmp = row_set(gates[0]), g_slc = row_set(gates[1]), g_win = row_set(gates[2]);
    for_row(Dv, [&](auto at, std::int64_t e) HWY_ATTR {
      const TileVec sum = hn::MulAdd(g_slc, at.load(o_slc + e), hn::Mul(g_cmp, at.load(o_cmp + e)));
      at.store(hn::MulAdd(g_win, at.load(o_win + e), sum), o + e);
    });
  }
}

// One branch: o_b becomes gates_b * d_o; d_logit and delta from the dot product of both, which is d_gate.
template <class T>
HWY_INLINE void gate_backward_piece(T* d_logits, float* delta, T* o_b, const float* gates, const T* d_o,
                                    std::int64_t rows, std::int64_t Dv) {
  for (std::int64_t row = 0; row < rows; ++row, gates += 3, d_logits += 3, o_b += Dv, d_o += Dv) {
    const float g = gates[0];
    const TileVec gate = row_set(g);
    const float d_gate = sum_row(Dv, [&](auto at, std::int64_t e) HWY_ATTR {
      const TileVec d = at.load(d_o + e), product = hn::Mul(d, at.load(o_b + e));
      at.store(hn::Mul(gate, d), o_b + e);
      return product;
    });
    d_logits[0] = static_cast<T>(d_gate * g * (1.0f - g));
    delta[row] = g * d_gate;
  }
}

void gate_piece_f32(float* o, float* gates, const float* o_cmp, const float* o_slc, const float* o_win,
                    std::int64_t rows, std::int64_t Dv) {
  gate_piece(o, gates, o_cmp, o_slc, o_win, rows, Dv);
}
void gate_piece_bf16(bf16* o, float* gates, const bf16* o_cmp, const bf16* o_slc, const bf16* o_win, std::int64_t rows,
                     std::int64_t Dv) {
  gate_piece(o, gates, o_cmp, o_slc, o_win, rows, Dv);
}
void gate_backward_piece_f32(float* d_logits, float* delta, float* o_b, const float* gates, const float* d_o,
                             std::int64_t rows, std::int64_t Dv) {
  gate_backward_piece(d_logits, delta, o_b, gates, d_o, rows, Dv);
}
void gate_backward_piece_bf16(bf16* d_logits, float* delta, bf16* o_b, const float* gates, const bf16* d_o,
                              std::int64_t rows, std::int64_t Dv) {
  gate_backward_piece(d_logits, delta, o_b, gates, d_o, rows, Dv);
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace nsa
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace nsa {
HWY_EXPORT(gate_piece_f32);
HWY_EXPORT(gate_piece_bf16);
HWY_EXPORT(gate_backward_piece_f32);
HWY_EXPORT(gate_backward_piece_bf16);

namespace cpu {

void gate_forward(Device& dev, Out o, InOut gates, In o_cmp, In o_slc, In o_win) {
  if (dev.planning()) return;
  const std::int64_t rows = o.dim(0) * o.dim(1), Dv = o.dim(2);
  float* gp = gates.raw<float>();
  dispatch_type(o.dtype, [&]<class T>() {
    T* op = o.raw<T>();
    const T *cmp = o_cmp.raw<T>(), *slc = o_slc.raw<T>(), *win = o_win.raw<T>();
    parallel_ranges(dev.threads, rows, rows_per_piece(4 * Dv), [&](std::int64_t begin, std::int64_t end, int) {
      const std::int64_t at = begin * Dv;
      NSA_KERNEL(T, gate_piece)(op + at, gp + begin * 3, cmp + at, slc + at, win + at, end - begin, Dv);
    });
  });
}

void gate_backward(Device& dev, Out d_logits, Out delta, InOut o_cmp, InOut o_slc, InOut o_win, In gates, In d_o) {
  if (dev.planning()) return;
  const std::int64_t rows = d_o.dim(0) * d_o.dim(1), Dv = d_o.dim(2);
  float* delta_p = delta.raw<float>();
  const float* gates_p = gates.raw<float>();
  dispatch_type(d_o.dtype, [&]<class T>() {
    T* d_logits_p = d_logits.raw<T>();
    const T* d_o_p = d_o.raw<T>();
    T* branches[3] = {o_cmp.raw<T>(), o_slc.raw<T>(), o_win.raw<T>()};
    parallel_ranges(dev.threads, rows, rows_per_piece(4 * Dv), [&](std::int64_t begin, std::int64_t end, int) {
      for (std::int64_t b = 0; b < 3; ++b)  // d_o of a piece stays in L1/L2 for the three branches
        NSA_KERNEL(T, gate_backward_piece)
      (d_logits_p + begin * 3 + b, delta_p + b * rows + begin, branches[b] + begin * Dv, gates_p + begin * 3 + b,
       d_o_p + begin * Dv, end - begin, Dv);
    });
  });
}

}  // namespace cpu
}  // namespace nsa
#endif  // HWY_ONCE
