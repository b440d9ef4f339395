// Looks at what forward saved: how the compression attention spreads and what the selection catches of it; how much
// each branch gives to the output. Who does what: look_at_selection, one query of one sequence per piece, all its
// heads; look_at_outputs, some rows (n,h). Bytes and FLOPs: B*H*T/every dot products with all visible compressed keys,
// scratch of a thread 2 Tc; the three outputs read once. Assumes q, kc, o f32 or bf16; Tc may be 0. Determinism: pieces
// depend on the shapes alone, their sums are doubles, added in order.
#include <array>
#include <cmath>
#include <limits>
#include <numbers>

#include "core/parallel.h"
#include "nsa/cpu/candidates.h"
#include "nsa/ops.h"
#include "ops/cpu/grain.h"
#include "ops/cpu/kernel.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "nsa/cpu/look.cpp"
#include <hwy/foreach_target.h>

#include "ops/cpu/row-inl.h"

HWY_BEFORE_NAMESPACE();
namespace nsa {
namespace HWY_NAMESPACE {
namespace {

// One head: p (keys) += its probabilities, the rows of kc being `stride` apart; gives their entropy in bits.
template <class T>
HWY_INLINE double add_head(float* HWY_RESTRICT p, float* HWY_RESTRICT x, const T* q, const T* kc, std::int64_t stride,
                           std::int64_t keys, std::int64_t Dk, float lse) {
  constexpr float kLog2e = std::numbers::log2e_v<float>;
  const float scale = kLog2e / std::sqrt(static_cast<float>(Dk)), lse2 = lse * kLog2e;
  for (std::int64_t i = 0; i < keys; ++i, kc += stride) {
    const float dot =
        sum_row(Dk, [&](auto at, std::int64_t e) HWY_ATTR { return hn::Mul(at.load(q + e), at.load(kc + e)); });
    x[i] = scale * dot - lse2;  // log2 p
  }
  return -static_cast<double>(sum_row(keys, [&](auto at, std::int64_t i) HWY_ATTR {
    const TileVec log2_p = at.load(x + i), probability = exp2_softmax(log2_p);
    at.store(hn::Add(at.load(p + i), probability), p + i);
    return hn::Mul(probability, log2_p);  // a lane beyond the end has log2_p = 0
  }));
}
double add_head_f32(float* p, float* x, const float* q, const float* kc, std::int64_t stride, std::int64_t keys,
                    std::int64_t Dk, float lse) {
  return add_head(p, x, q, kc, stride, keys, Dk, lse);
}
double add_head_bf16(float* p, float* x, const bf16* q, const bf16* kc, std::int64_t stride, std::int64_t keys,
                     std::int64_t Dk, float lse) {
  return add_head(p, x, q, kc, stride, keys, Dk, lse);
}

// sum over the rows of the squares of gate * o; gates 3 apart
template <class T>
HWY_INLINE double gated_squares(const float* gates, const T* o, std::int64_t rows, std::int64_t Dv) {
  double sum = 0;
  for (std::int64_t row = 0; row < rows; ++row, gates += 3, o += Dv) {
    const double g = static_cast<double>(*gates);
    sum += g * g * static_cast<double>(sum_row(Dv, [&](auto at, std::int64_t e) HWY_ATTR {
             const TileVec v = at.load(o + e);
             return hn::Mul(v, v);
           }));
  }
  return sum;
}
double gated_squares_f32(const float* gates, const float* o, std::int64_t rows, std::int64_t Dv) {
  return gated_squares(gates, o, rows, Dv);
}
double gated_squares_bf16(const float* gates, const bf16* o, std::int64_t rows, std::int64_t Dv) {
  return gated_squares(gates, o, rows, Dv);
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace nsa
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace nsa {
HWY_EXPORT(add_head_f32);
HWY_EXPORT(add_head_bf16);
HWY_EXPORT(gated_squares_f32);
HWY_EXPORT(gated_squares_bf16);

namespace cpu {
namespace {

using Sums = std::array<double, 3>;

/// to (3) = the pieces' sums, in order, over how many terms each has
void write_means(Out to, In pieces, const std::array<std::int64_t, 3>& terms) {
  const Sums* sums = static_cast<const Sums*>(pieces.raw_bytes());
  for (std::size_t k = 0; k < 3; ++k) {
    double total = 0;
    for (std::int64_t i = 0; i < pieces.dim(0); ++i) total += sums[i][k];
    to.raw<float>()[k] =
        terms[k] ? static_cast<float>(total / static_cast<double>(terms[k])) : std::numeric_limits<float>::quiet_NaN();
  }
}

/// Does the selection leave anything out, and had it a choice?
bool chooses(const Candidates& c, std::int64_t n) { return c.taken(n) > 0 && c.taken(n) < c.free(); }

/// score (current + 1) of Eq. 9-10: compressed block i lies in the chunks i .. i + l/d - 1, block j in l'/d of them
void score_blocks(float* score, const float* p, std::int64_t keys, std::int64_t current, const NsaShape& geometry) {
  const std::int64_t ratio = geometry.l_sel / geometry.d, reach = geometry.l / geometry.d;
  std::fill_n(score, current + 1, 0.0f);
  for (std::int64_t i = 0; i < keys; ++i)
    for (std::int64_t r = 0; r < reach; ++r) score[(i + r) / ratio] += p[i];
}

/// Shares of the scores: that of the selected blocks, and that of as many drawn at random.
std::array<double, 2> covered(const float* score, const Candidates& c, const std::int32_t* selected, std::int64_t n) {
  double all = 0, free = 0, chosen = 0;
  for (std::int64_t j = 0; j <= c.current; ++j) {
    const double s = static_cast<double>(score[j]);
    all += s;
    if (j >= c.first_free && j < c.last_free) free += s;
  }
  for (std::int64_t i = 0; i < n; ++i)
    if (selected[i] >= 0) chosen += static_cast<double>(score[selected[i]]);
  const double drawn = static_cast<double>(c.taken(n)) / static_cast<double>(c.free());
  return {chosen / all, (all - free + free * drawn) / all};
}

}  // namespace

void look_at_selection(Device& dev, Out means, In q, In kc, In lse, In selected, const NsaShape& geometry,
                       std::int64_t every) {
  const std::int64_t B = q.dim(0), T = q.dim(1), H = q.dim(2), Dk = q.dim(3), Tc = kc.dim(1), Hkv = kc.dim(2),
                     G = H / Hkv, n = geometry.n, samples = (T - 1) / every + 1;
  ArenaScope scope(dev.work);
  const Tensor pieces = dev.scratch({B * samples, 3, 2});  // one double each
  const Tensor scratch = dev.scratch({dev.threads, 2 * Tc + geometry.blocks(T)});
  if (dev.planning()) return;
  Sums* sums = static_cast<Sums*>(pieces.raw_bytes());
  const auto query = [&](std::int64_t i) { return T - 1 - i % samples * every; };
  dispatch_type(q.dtype, [&]<class T_>() {
    parallel_for(dev.threads, B * samples, [&](std::int64_t i, int thread) {
      const std::int64_t b = i / samples, t = query(i), keys = geometry.visible(t);
      const Candidates c(geometry, t);
      float *p = scratch.raw<float>() + thread * scratch.dim(1), *x = p + Tc, *score = x + Tc;
      sums[i] = {};
      for (std::int64_t j = 0; j < Hkv && keys > 0; ++j) {
        std::fill_n(p, keys, 0.0f);
        double bits = 0;
        for (std::int64_t h = j * G; h < (j + 1) * G; ++h) {
          const std::int64_t row = (b * T + t) * H + h;
          bits += NSA_KERNEL(T_, add_head)(p, x, q.raw<T_>() + row * Dk, kc.raw<T_>() + (b * Tc * Hkv + j) * Dk,
                                           Hkv * Dk, keys, Dk, lse.raw<float>()[row]);
        }
        if (keys > 1) sums[i][0] += bits / std::log2(static_cast<double>(keys));
        if (!chooses(c, n)) continue;
        score_blocks(score, p, keys, c.current, geometry);
        const auto shares = covered(score, c, selected.raw<std::int32_t>() + ((b * Hkv + j) * T + t) * n, n);
        sums[i][1] += shares[0], sums[i][2] += shares[1];
      }
    });
  });
  std::int64_t spread = 0, choosing = 0;
  for (std::int64_t i = 0; i < B * samples; ++i) {
    spread += geometry.visible(query(i)) > 1;
    choosing += chooses(Candidates(geometry, query(i)), n);
  }
  write_means(means, pieces, {spread * H, choosing * Hkv, choosing * Hkv});
}

void look_at_outputs(Device& dev, Out mean_squares, In gates, In o_cmp, In o_slc, In o_win) {
  const std::int64_t rows = o_cmp.dim(0) * o_cmp.dim(1), Dv = o_cmp.dim(2), grain = rows_per_piece(Dv);
  ArenaScope scope(dev.work);
  const Tensor pieces = dev.scratch({(rows + grain - 1) / grain, 3, 2});  // one double each
  if (dev.planning()) return;
  Sums* sums = static_cast<Sums*>(pieces.raw_bytes());
  dispatch_type(o_cmp.dtype, [&]<class T>() {
    const T* outputs[3] = {o_cmp.raw<T>(), o_slc.raw<T>(), o_win.raw<T>()};
    parallel_ranges(dev.threads, rows, grain, [&](std::int64_t begin, std::int64_t end, int) {
      for (std::size_t k = 0; k < 3; ++k)
        sums[begin / grain][k] = NSA_KERNEL(T, gated_squares)(
            gates.raw<float>() + begin * 3 + static_cast<std::int64_t>(k), outputs[k] + begin * Dv, end - begin, Dv);
    });
  });
  const std::int64_t terms = rows * Dv;
  write_means(mean_squares, pieces, {terms, terms, terms});
}

}  // namespace cpu
}  // namespace nsa
#endif  // HWY_ONCE
