// Attention in bf16 on CPUs that multiply it: the tiles of forward and backward as pairs (tile_bf16-inl.h). Scores are
// scaled after their product, not before: a scaled query would have to be rounded again.
#include "ops/cpu/attention-inl.h"
#include "ops/cpu/tile_bf16-inl.h"

#if defined(NSA_OPS_CPU_ATTENTION_BF16_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef NSA_OPS_CPU_ATTENTION_BF16_INL_H_
#undef NSA_OPS_CPU_ATTENTION_BF16_INL_H_
#else
#define NSA_OPS_CPU_ATTENTION_BF16_INL_H_
#endif

#if HWY_TARGET == HWY_AVX3
HWY_BEFORE_NAMESPACE();
namespace nsa {
namespace HWY_NAMESPACE {

/// Row lengths of a tile of scores: its rows interleaved by pairs of keys, and as they are.
constexpr std::int64_t kPairsOfKeys = 2 * kScoreStride, kRowOfKey = bf16_stride(cpu::kTileRows);

HWY_INLINE bf16* take_bf16(TakeTiles& take, std::int64_t rows, std::int64_t stride) {
  return reinterpret_cast<bf16*>(take(rows, stride / 2));
}

/// y (C / 2, R) pairs of neighbouring elements = x (R,C)^T; R a multiple of 4, C of 8.
inline void transpose_pairs(bf16* y, std::int64_t y_stride, const bf16* x, std::int64_t x_stride, std::int64_t R,
                            std::int64_t C) {
  const auto from = [&](std::int64_t r, std::int64_t c) {
    return reinterpret_cast<const float*>(x + r * x_stride + c);
  };
  const auto to = [&](std::int64_t c, std::int64_t r) {
    return reinterpret_cast<float*>(y + c / 2 * y_stride + 2 * r);
  };
  for (std::int64_t r = 0; r < R; r += 4)
    for (std::int64_t c = 0; c < C; c += 8)
      transpose4(from(r, c), from(r + 1, c), from(r + 2, c), from(r + 3, c), to(c, r), to(c + 2, r), to(c + 4, r),
                 to(c + 6, r));
}
/// The same of rows in a buffer of (kTileRows, bf16_stride(D)), for a tile.
inline void transpose_rows(bf16* y, const bf16* rows, std::int64_t columns, std::int64_t D) {
  transpose_pairs(y, kPairsOfKeys, rows, bf16_stride(D), columns, round_up(D, kTileN));
}

/// Products into scores in log2 units.
struct ScaleSink : EachVector<ScaleSink> {
  float* s;
  std::int64_t stride;
  float scale;
  HWY_INLINE ScaleSink(float* s_, std::int64_t stride_, float scale_) : s(s_), stride(stride_), scale(scale_) {}
  HWY_INLINE void each(TileVec x, std::int64_t i, std::int64_t j) const {
    hn::StoreU(hn::Mul(x, hn::Set(TileTag(), scale)), TileTag(), s + i * stride + j);
  }
};

/// Products into probabilities 2^(scale x - m) by pairs of keys, with each column's maximum, not scaled, and sum.
struct SoftmaxPairsSink {
  bf16* p;
  const float* m;
  float *top, *sum;
  float scale;
  template <int MR, int NV>
  HWY_INLINE void begin(std::int64_t, std::int64_t) const {}
  template <int MR, int NV>
  HWY_INLINE void finish(const TileVec (&acc)[MR][NV], std::int64_t i, std::int64_t j) const {
    const TileTag d;
    const TileVec factor = hn::Set(d, scale);
    TileVec x[MR][NV];  // not pair by pair: that takes 28 cycles a vector, this 11
    HWY_UNROLL(8) for (int v = 0; v < NV; ++v) {
      const std::int64_t c = j + v * kTileN;
      const TileVec reference = hn::LoadU(d, m + c);
      TileVec top_c = hn::LoadU(d, top + c);
      HWY_UNROLL(8) for (int r = 0; r < MR; ++r) {
        top_c = hn::Max(top_c, acc[r][v]);
        x[r][v] = exp2_softmax(hn::MulSub(acc[r][v], factor, reference));
      }
      hn::StoreU(top_c, d, top + c);
      TileVec sum_c = hn::LoadU(d, sum + c);
      HWY_UNROLL(8) for (int r = 0; r < MR; ++r) sum_c = hn::Add(sum_c, x[r][v]);
      hn::StoreU(sum_c, d, sum + c);
      HWY_UNROLL(8)
      for (int r = 0; r < MR; r += 2) store_pairs(x[r][v], r + 1 < MR ? x[r + 1 < MR ? r + 1 : r][v] : hn::Zero(d),
                                                  p + (i + r) / 2 * kPairsOfKeys + 2 * c);
    }
  }
};

/// The tiles of forward; what forward_tile (attention.cpp) calls.
struct ForwardPairs {
  float score_scale;                       // log2e / sqrt(Dk)
  bf16* q;                                 // (rows, Dk)
  bf16* q_t;                               // (Dk / 2, rows) pairs
  bf16 *k, *v;                             // (keys, Dk); (keys / 2, Dv) pairs
  bf16* p;                                 // (keys / 2, rows) pairs
  float *s, *o_t, *o, *m, *l, *top, *sum;  // as in ForwardBuffers; s where two passes are needed
  std::int64_t size;

  ForwardPairs(const cpu::AttentionShape& a, float* base) : score_scale(kLog2e / std::sqrt(static_cast<float>(a.Dk))) {
    TakeTiles take{base};
    q = take_bf16(take, cpu::kTileRows, bf16_stride(a.Dk));
    q_t = take_bf16(take, round_up(a.Dk, kTileN) / 2, kPairsOfKeys);
    k = take_bf16(take, a.key_block, bf16_stride(a.Dk));
    v = take_bf16(take, a.key_block / 2, pair_stride(a.Dv));
    p = take_bf16(take, a.key_block / 2, kPairsOfKeys);
    s = take(a.key_block, kScoreStride);
    o_t = take(a.Dv, kScoreStride);
    o = take(cpu::kTileRows, tile_stride(a.Dv));
    m = take(1, cpu::kTileRows), l = take(1, cpu::kTileRows);
    top = take(1, cpu::kTileRows), sum = take(1, cpu::kTileRows);
    size = take.size;
  }

  void load_queries(const cpu::ForwardArgs<bf16>& args, const cpu::RowTile& tile) const {
    const cpu::AttentionShape& a = args.shape;
    gather_rows(q, bf16_stride(a.Dk), args.q, a, tile, a.Dk);
    transpose_rows(q_t, q, tile.columns(), a.Dk);
  }
  void load_keys(const cpu::ForwardArgs<bf16>& args, std::int64_t row, std::int64_t keys) const {
    const cpu::AttentionShape& a = args.shape;
    copy_rows(k, bf16_stride(a.Dk), args.k + row * a.Dk, a.Hkv * a.Dk, keys, a.Dk);
    interleave_rows(v, pair_stride(a.Dv), args.v + row * a.Dv, a.Hkv * a.Dv, keys, a.Dv);
  }

  template <class Sink>
  HWY_INLINE void score_product(const cpu::AttentionShape& a, std::int64_t keys, std::int64_t c0, std::int64_t width,
                                const Sink& sink) const {
    tile_product(keys, width, PairOperands{(a.Dk + 1) / 2, k, bf16_stride(a.Dk), 2, q_t + 2 * c0, kPairsOfKeys}, sink);
  }
  void scores(const cpu::AttentionShape& a, std::int64_t keys, std::int64_t c0, std::int64_t width) const {
    score_product(a, keys, c0, width, ScaleSink(s + c0, kScoreStride, score_scale));
  }
  void one_pass_softmax(const cpu::AttentionShape& a, std::int64_t keys, std::int64_t width) const {
    score_product(a, keys, 0, width, SoftmaxPairsSink{p, m, top, sum, score_scale});
  }
  /// By a power of two, so that probabilities shrink without being rounded again.
  static TileVec raised(TileVec m, TileVec top) { return hn::Add(m, hn::Ceil(hn::Sub(top, m))); }
  void shrink_probabilities(std::int64_t keys, std::int64_t c, TileVec shrink) const {
    scale_pairs(p + 2 * c, kPairsOfKeys, (keys + 1) / 2, shrink);
  }
  /// The probabilities in s become pairs.
  void two_pass_done(std::int64_t keys, std::int64_t c0, std::int64_t width) const {
    const TileTag d;
    for (std::int64_t i = 0; i < keys; i += 2)
      for (std::int64_t c = c0; c < c0 + width; c += kTileN) {
        const float* s_ic = s + i * kScoreStride + c;
        store_pairs(hn::LoadU(d, s_ic), i + 1 < keys ? hn::LoadU(d, s_ic + kScoreStride) : hn::Zero(d),
                    p + i / 2 * kPairsOfKeys + 2 * c);
      }
  }
  void add_values(const cpu::AttentionShape& a, std::int64_t keys, std::int64_t c0, std::int64_t width) const {
    tile_product(a.Dv, width, PairOperands{(keys + 1) / 2, v, 2, pair_stride(a.Dv), p + 2 * c0, kPairsOfKeys},
                 AddSink(o_t + c0, kScoreStride));
  }
};

}  // namespace HWY_NAMESPACE
}  // namespace nsa
HWY_AFTER_NAMESPACE();
#endif

#endif  // per-target include guard
