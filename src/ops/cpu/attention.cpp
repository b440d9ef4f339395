// Causal attention forward, optionally with a sliding window: blocked, online softmax (arXiv 2205.14135), and the
// softmax delta of the backward pass.
//
// Who does what: a piece of work is one tile of 192 query rows of one (b, kv head), last tiles (the longest) first; it
// walks the keys it sees in blocks of 96.
//   scores^T (keys, rows) = K (scale log2e Q)^T; mask where the diagonal or the window cuts; online softmax down the
//   columns; O^T += V^T P^T. Where nothing is masked, the exponentials are taken while the scores are still in
//   registers (kSlack in attention-inl.h).
// FLOPs: 4 D per (query, visible key) and head, D = (Dk+Dv)/2. Bytes: K and V once per tile, from the cache when T
// (Dk+Dv) 4 bytes fit; o, q, lse once. Assumes: f32 or bf16, contiguous, T < 2^31. In bf16, where the
// CPU multiplies it (attention_bf16-inl.h), K, Q and V are taken as they are and probabilities are rounded to bf16;
// elsewhere tiles are widened as they are loaded. Sums are floats, and o is rounded once. Memory: a few tiles per
// thread, nothing that grows with T. Deterministic: a tile is computed by one thread in key order, so no bit depends on
// the number of threads.
#include <cmath>

#include "core/parallel.h"
#include "ops/cpu/attention_tiles.h"
#include "ops/cpu/grain.h"
#include "ops/cpu/kernel.h"
#include "ops/ops.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/cpu/attention.cpp"
#include <hwy/foreach_target.h>

#include "ops/cpu/attention-inl.h"
#include "ops/cpu/attention_bf16-inl.h"
#include "ops/cpu/row-inl.h"

HWY_BEFORE_NAMESPACE();
namespace nsa {
namespace HWY_NAMESPACE {
namespace {

using cpu::ForwardArgs;
using cpu::KeyRange;
using cpu::kTileRows;
using cpu::RowTile;

// Scores into probabilities 2^(s - m), with each column's maximum and sum.
struct SoftmaxSink {
  float* p;
  const float* m;
  float *top, *sum;
  template <int MR, int NV>
  HWY_INLINE void begin(std::int64_t, std::int64_t) const {}
  template <int MR, int NV>
  HWY_INLINE void finish(const TileVec (&acc)[MR][NV], std::int64_t i, std::int64_t j) const {
    const TileTag d;
    HWY_UNROLL(8) for (int v = 0; v < NV; ++v) {
      const std::int64_t c = j + v * static_cast<std::int64_t>(hn::Lanes(d));
      const TileVec reference = hn::LoadU(d, m + c);
      TileVec top_c = hn::LoadU(d, top + c), sum_c = hn::LoadU(d, sum + c);
      HWY_UNROLL(8) for (int r = 0; r < MR; ++r) {
        const TileVec probability = exp2_softmax(hn::Sub(acc[r][v], reference));
        hn::StoreU(probability, d, p + (i + r) * kScoreStride + c);
        top_c = hn::Max(top_c, acc[r][v]);
        sum_c = hn::Add(sum_c, probability);
      }
      hn::StoreU(top_c, d, top + c);
      hn::StoreU(sum_c, d, sum + c);
    }
  }
};

// One thread's tiles. With base == nullptr only their size is counted.
struct ForwardBuffers {
  static constexpr float score_scale = 1;  // the queries are scaled
  float* q_t;                              // (Dk, rows) scale * log2e * q
  float *k, *v;                            // (keys, Dk), (keys, Dv)
  float* s;                                // (keys, rows) scores, then probabilities
  float* o_t;                              // (Dv, rows) unnormalised output
  float* o;                                // (rows, Dv)
  float *m, *l;      // (rows) reference of the exponentials in log2 units, the maximum or a little less; running sum
  float *top, *sum;  // (rows) a block's maximum and sum
  std::int64_t size;

  ForwardBuffers(const cpu::AttentionShape& a, float* base) {
    TakeTiles take{base};
    q_t = take(a.Dk, kScoreStride);
    k = take(a.key_block, tile_stride(a.Dk));
    v = take(a.key_block, tile_stride(a.Dv));
    s = take(a.key_block, kScoreStride);
    o_t = take(a.Dv, kScoreStride);
    o = take(kTileRows, tile_stride(std::max(a.Dk, a.Dv)));
    m = take(1, kTileRows), l = take(1, kTileRows);
    top = take(1, kTileRows), sum = take(1, kTileRows);
    size = take.size;
  }

  template <class T>
  void load_queries(const ForwardArgs<T>& args, const RowTile& tile) const {
    const cpu::AttentionShape& a = args.shape;
    const std::int64_t stride = tile_stride(a.Dk), columns = tile.columns();
    gather_rows(o, stride, args.q, a, tile, a.Dk);
    scale_rows(o, stride, columns, round_up(a.Dk, kTileN), kLog2e / std::sqrt(static_cast<float>(a.Dk)));
    transpose(q_t, kScoreStride, o, stride, columns, a.Dk);
  }
  template <class T>
  void load_keys(const ForwardArgs<T>& args, std::int64_t row, std::int64_t keys) const {
    const cpu::AttentionShape& a = args.shape;
    copy_rows(k, tile_stride(a.Dk), args.k + row * a.Dk, a.Hkv * a.Dk, keys, a.Dk);
    copy_rows(v, tile_stride(a.Dv), args.v + row * a.Dv, a.Hkv * a.Dv, keys, a.Dv);
  }

  // Columns [c0, c0 + width) of the scores, in log2 units.
  void scores(const cpu::AttentionShape& a, std::int64_t keys, std::int64_t c0, std::int64_t width) const {
    tile_gemm<false>(keys, width, a.Dk, k, tile_stride(a.Dk), 1, q_t + c0, kScoreStride, s + c0, kScoreStride);
  }
  void one_pass_softmax(const cpu::AttentionShape& a, std::int64_t keys, std::int64_t width) const {
    tile_product(keys, width, a.Dk, k, tile_stride(a.Dk), 1, q_t, kScoreStride, SoftmaxSink{s, m, top, sum});
  }
  static TileVec raised(TileVec, TileVec top) { return top; }
  void shrink_probabilities(std::int64_t keys, std::int64_t c, TileVec shrink) const {
    const TileTag d;
    for (std::int64_t i = 0; i < keys; ++i)
      hn::StoreU(hn::Mul(hn::LoadU(d, s + i * kScoreStride + c), shrink), d, s + i * kScoreStride + c);
  }
  void two_pass_done(std::int64_t, std::int64_t, std::int64_t) const {}
  void add_values(const cpu::AttentionShape& a, std::int64_t keys, std::int64_t c0, std::int64_t width) const {
    tile_gemm<true>(a.Dv, width, keys, v, 1, tile_stride(a.Dv), s + c0, kScoreStride, o_t + c0, kScoreStride);
  }
};

// One vector of columns: new maximum over the keys, s = 2^(s - m), sum. The maximum starts at the lowest float, not at
// -inf: a column whose keys are all masked so far must give 2^(-inf - lowest) = 0, not 2^(-inf + inf) = NaN.
HWY_INLINE void softmax_columns(float* s, std::int64_t keys, float* m, float* l, float* o_t, std::int64_t Dv) {
  const TileTag d;
  const TileVec m_old = hn::LoadU(d, m);
  TileVec m0 = m_old, m1 = m_old, m2 = m_old, m3 = m_old;
  std::int64_t i = 0;
  for (; i + 4 <= keys; i += 4) {
    m0 = hn::Max(m0, hn::LoadU(d, s + i * kScoreStride));
    m1 = hn::Max(m1, hn::LoadU(d, s + (i + 1) * kScoreStride));
    m2 = hn::Max(m2, hn::LoadU(d, s + (i + 2) * kScoreStride));
    m3 = hn::Max(m3, hn::LoadU(d, s + (i + 3) * kScoreStride));
  }
  for (; i < keys; ++i) m0 = hn::Max(m0, hn::LoadU(d, s + i * kScoreStride));
  const TileVec m_new = hn::Max(hn::Max(m0, m1), hn::Max(m2, m3));
  TileVec sum = hn::LoadU(d, l);
  if (!hn::AllTrue(d, hn::Eq(m_new, m_old))) {
    const TileVec shrink = exp2_softmax(hn::Sub(m_old, m_new));
    sum = hn::Mul(sum, shrink);
    for (std::int64_t j = 0; j < Dv; ++j)
      hn::StoreU(hn::Mul(hn::LoadU(d, o_t + j * kScoreStride), shrink), d, o_t + j * kScoreStride);
    hn::StoreU(m_new, d, m);
  }
  for (i = 0; i < keys; ++i) {
    const TileVec p = exp2_softmax(hn::Sub(hn::LoadU(d, s + i * kScoreStride), m_new));
    hn::StoreU(p, d, s + i * kScoreStride);
    sum = hn::Add(sum, p);
  }
  hn::StoreU(sum, d, l);
}

// The probabilities of a block that every column sees whole, in one pass. False: some scores leapt; nothing but the
// probabilities, t.top and t.sum was written.
template <class Buffers>
HWY_INLINE bool softmax_block(const Buffers& t, const cpu::AttentionShape& a, std::int64_t keys, std::int64_t width) {
  const TileTag d;
  const std::int64_t lanes = static_cast<std::int64_t>(hn::Lanes(d));
  const TileVec scale = hn::Set(d, t.score_scale);
  std::fill_n(t.top, width, std::numeric_limits<float>::lowest());
  std::fill_n(t.sum, width, 0.0f);
  t.one_pass_softmax(a, keys, width);
  TileVec rise = hn::Set(d, 0.0f);
  for (std::int64_t c = 0; c < width; c += lanes)
    rise = hn::Max(rise, hn::Sub(hn::Mul(hn::LoadU(d, t.top + c), scale), hn::LoadU(d, t.m + c)));
  if (!hn::AllTrue(d, hn::Le(rise, hn::Set(d, kLeap)))) return false;
  for (std::int64_t c = 0; c < width; c += lanes) {
    const TileVec m = hn::LoadU(d, t.m + c), top = hn::Mul(hn::LoadU(d, t.top + c), scale),
                  sum = hn::Add(hn::LoadU(d, t.l + c), hn::LoadU(d, t.sum + c));
    const auto too_high = hn::Gt(hn::Sub(top, m), hn::Set(d, kSlack));
    if (hn::AllFalse(d, too_high)) {
      hn::StoreU(sum, d, t.l + c);
      continue;
    }
    const TileVec m_new = hn::IfThenElse(too_high, t.raised(m, top), m), shrink = exp2_softmax(hn::Sub(m, m_new));
    for (std::int64_t j = 0; j < a.Dv; ++j)
      hn::StoreU(hn::Mul(hn::LoadU(d, t.o_t + j * kScoreStride + c), shrink), d, t.o_t + j * kScoreStride + c);
    t.shrink_probabilities(keys, c, shrink);
    hn::StoreU(hn::Mul(sum, shrink), d, t.l + c);
    hn::StoreU(m_new, d, t.m + c);
  }
  return true;
}

// The keys in t.k and t.v. Where the mask cuts, and in a tile's first block, whose reference is the lowest float: two
// passes.
template <class Buffers>
HWY_NOINLINE void attend_keys(const Buffers& t, const cpu::AttentionShape& a, const RowTile& tile,
                              const KeyRange& range) {
  const std::int64_t keys = range.s1 - range.s0, c0 = range.c0, width = range.c1 - c0,
                     lanes = static_cast<std::int64_t>(hn::Lanes(TileTag()));
  if (range.masked || range.s0 == tile.key_begin || !softmax_block(t, a, keys, width)) {
    t.scores(a, keys, c0, width);
    if (range.masked) mask_scores(t.s, range, tile);
    for (std::int64_t c = c0; c < range.c1; c += lanes)
      softmax_columns(t.s + c, keys, t.m + c, t.l + c, t.o_t + c, a.Dv);
    t.two_pass_done(keys, c0, width);
  }
  t.add_values(a, keys, c0, width);
}

template <class Buffers, class T>
void store_outputs(const Buffers& t, const ForwardArgs<T>& args, const RowTile& tile) {
  const cpu::AttentionShape& a = args.shape;
  const std::int64_t stride = tile_stride(a.Dv);
  transpose(t.o, stride, t.o_t, kScoreStride, a.Dv, tile.columns());
  for (std::int64_t r = 0; r < tile.rows; ++r) {
    const std::int64_t row = a.query_row(tile.unit, tile.n0 + r);
    const TileVec inverse = row_set(1.0f / t.l[r]);
    const float* from = t.o + r * stride;
    T* to = args.o + row * a.Dv;
    for_row(a.Dv, [&](auto at, std::int64_t c) HWY_ATTR { at.store(hn::Mul(at.load(from + c), inverse), to + c); });
    args.lse[row] = t.m[r] * kLn2 + std::log(t.l[r]);
  }
}

template <class Buffers, class T>
void forward_tile(const Buffers& t, const ForwardArgs<T>& args, std::int64_t unit, std::int64_t tile_index) {
  const cpu::AttentionShape& a = args.shape;
  const RowTile tile(a, unit, tile_index);
  t.load_queries(args, tile);
  std::fill_n(t.o_t, a.Dv * kScoreStride, 0.0f);
  std::fill_n(t.m, tile.columns(), std::numeric_limits<float>::lowest());
  std::fill_n(t.l, tile.columns(), 0.0f);
  for (std::int64_t s0 = tile.key_begin; s0 < tile.key_end;) {
    const KeyRange range = tile.keys_from(s0);
    t.load_keys(args, a.key_row(unit, s0), range.s1 - s0);
    attend_keys(t, a, tile, range);
    s0 = range.s1;
  }
  store_outputs(t, args, tile);
}

std::int64_t forward_scratch(const cpu::AttentionShape& shape) {
#if HWY_TARGET == HWY_AVX3
  if (shape.pairs) return ForwardPairs(shape, nullptr).size;
#endif
  return ForwardBuffers(shape, nullptr).size;
}
void forward_tile_f32(const ForwardArgs<float>& args, std::int64_t unit, std::int64_t tile, float* scratch) {
  forward_tile(ForwardBuffers(args.shape, scratch), args, unit, tile);
}
void forward_tile_bf16(const ForwardArgs<bf16>& args, std::int64_t unit, std::int64_t tile, float* scratch) {
#if HWY_TARGET == HWY_AVX3
  if (args.shape.pairs) return forward_tile(ForwardPairs(args.shape, scratch), args, unit, tile);
#endif
  forward_tile(ForwardBuffers(args.shape, scratch), args, unit, tile);
}

/// delta (N) = sum over Dv of o (N,Dv) * d_o (N,Dv)
template <class T>
void delta_rows(float* delta, const T* o, const T* d_o, std::int64_t N, std::int64_t Dv) {
  for (std::int64_t n = 0; n < N; ++n)
    delta[n] = sum_row(Dv, [&](auto at, std::int64_t c)
                               HWY_ATTR { return hn::Mul(at.load(o + n * Dv + c), at.load(d_o + n * Dv + c)); });
}
void delta_rows_f32(float* delta, const float* o, const float* d_o, std::int64_t N, std::int64_t Dv) {
  delta_rows(delta, o, d_o, N, Dv);
}
void delta_rows_bf16(float* delta, const bf16* o, const bf16* d_o, std::int64_t N, std::int64_t Dv) {
  delta_rows(delta, o, d_o, N, Dv);
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace nsa
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace nsa {
HWY_EXPORT(forward_scratch);
HWY_EXPORT(forward_tile_f32);
HWY_EXPORT(forward_tile_bf16);
HWY_EXPORT(delta_rows_f32);
HWY_EXPORT(delta_rows_bf16);

namespace cpu {

void attention_forward(Device& dev, Out o, Saved lse, In q, In k, In v, std::int64_t window) {
  const AttentionShape shape(q, k, v, window);
  ArenaScope scope(dev.work);
  const Tensor scratch = dev.scratch({dev.threads, HWY_DYNAMIC_DISPATCH(forward_scratch)(shape)});
  if (dev.planning()) return;
  const std::int64_t units = shape.units(), last = shape.tiles() - 1;
  dispatch_type(q.dtype, [&]<class T>() {
    const ForwardArgs<T> args{shape, o.raw<T>(), lse.raw<float>(), q.raw<T>(), k.raw<T>(), v.raw<T>()};
    parallel_for(dev.threads, units * (last + 1), [&](std::int64_t i, int thread) {
      NSA_KERNEL(T, forward_tile)
      (args, i % units, last - i / units, scratch.raw<float>() + thread * scratch.dim(1));
    });
  });
}

void attention_delta(Device& dev, Out delta, In o, In d_o) {
  if (dev.planning()) return;
  const std::int64_t Dv = o.dim(3);
  dispatch_type(o.dtype, [&]<class T>() {
    parallel_ranges(dev.threads, delta.numel(), rows_per_piece(Dv), [&](std::int64_t begin, std::int64_t end, int) {
      NSA_KERNEL(T, delta_rows)
      (delta.raw<float>() + begin, o.raw<T>() + begin * Dv, d_o.raw<T>() + begin * Dv, end - begin, Dv);
    });
  });
}

}  // namespace cpu
}  // namespace nsa
#endif
