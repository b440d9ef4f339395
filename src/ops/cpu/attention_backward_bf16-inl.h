// Attention backward in bf16 on CPUs that multiply it. P and dS of a register block follow each other, so that P stays
// in the first cache level as floats; what the other products take is rounded and written in the layouts they need.
#include "ops/cpu/attention_bf16-inl.h"

#if defined(NSA_OPS_CPU_ATTENTION_BACKWARD_BF16_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef NSA_OPS_CPU_ATTENTION_BACKWARD_BF16_INL_H_
#undef NSA_OPS_CPU_ATTENTION_BACKWARD_BF16_INL_H_
#else
#define NSA_OPS_CPU_ATTENTION_BACKWARD_BF16_INL_H_
#endif

#if HWY_TARGET == HWY_AVX3
HWY_BEFORE_NAMESPACE();
namespace nsa {
namespace HWY_NAMESPACE {

/// Rows of a register block as bf16, each as it lies.
template <int MR, int NV>
HWY_INLINE void store_rows(const TileVec (&x)[MR][NV], bf16* p, std::int64_t stride) {
  HWY_UNROLL(8) for (int r = 0; r < MR; ++r) {
    if constexpr (NV == 1) {
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(p + r * stride),
                          _mm512_castsi512_si256(to_bf16(x[r][0], x[r][0])));
    } else {
      HWY_UNROLL(8)
      for (int v = 0; v < NV; v += 2) _mm512_storeu_si512(p + r * stride + v * kTileN, to_bf16(x[r][v], x[r][v + 1]));
    }
  }
}

/// Which of a step's keys its columns see. The first key and the token of each column; window: keys a column sees.
struct ColumnMask {
  std::int32_t key;
  const std::int32_t* token;
  std::int64_t window;

  HWY_INLINE TileVec visible(TileVec p, std::int64_t i, std::int64_t c) const {
    const TileTag d;
    const hn::RebindToSigned<TileTag> di;
    const std::int32_t k = key + static_cast<std::int32_t>(i);
    const auto t = hn::LoadU(di, token + c), back = hn::Sub(t, hn::Set(di, k));
    const std::int32_t reach = static_cast<std::int32_t>(window - 1);
    const auto hidden = hn::Or(hn::Lt(back, hn::Zero(di)), hn::Gt(back, hn::Set(di, reach)));
    return hn::IfThenZeroElse(hn::RebindMask(d, hidden), p);
  }
};

/// What a register block does: its probabilities (K Q^T, into `block` as floats and into p), then from V dO^T the
/// gradient by its scores, P (dP - delta), as rows and as pairs of keys.
template <bool kMasked>
struct ScoreGradients {
  PairOperands k_q, v_do;
  float scale;
  const float *lse, *delta;
  ColumnMask mask;
  float* probabilities;  ///< (kTileMR, kTileNV) vectors
  bf16 *p, *ds, *ds_pairs;

  struct Probabilities {
    const ScoreGradients& to;
    template <int MR, int NV>
    HWY_INLINE void begin(std::int64_t, std::int64_t) const {}
    template <int MR, int NV>
    HWY_INLINE void finish(const TileVec (&acc)[MR][NV], std::int64_t i, std::int64_t j) const {
      const TileTag d;
      const TileVec factor = hn::Set(d, to.scale);
      TileVec p[MR][NV];
      HWY_UNROLL(8) for (int v = 0; v < NV; ++v) {
        const TileVec reference = hn::LoadU(d, to.lse + j + v * kTileN);
        HWY_UNROLL(8) for (int r = 0; r < MR; ++r) {
          p[r][v] = exp2_softmax(hn::MulSub(acc[r][v], factor, reference));
          if (kMasked) p[r][v] = to.mask.visible(p[r][v], i + r, j + v * kTileN);
          hn::StoreU(p[r][v], d, to.probabilities + (r * NV + v) * kTileN);
        }
      }
      store_rows(p, to.p + i * kRowOfKey + j, kRowOfKey);
    }
  };
  struct Gradients {
    const ScoreGradients& to;
    template <int MR, int NV>
    HWY_INLINE void begin(std::int64_t, std::int64_t) const {}
    template <int MR, int NV>
    HWY_INLINE void finish(const TileVec (&acc)[MR][NV], std::int64_t i, std::int64_t j) const {
      const TileTag d;
      TileVec ds[MR][NV];
      HWY_UNROLL(8) for (int v = 0; v < NV; ++v) {
        const TileVec delta = hn::LoadU(d, to.delta + j + v * kTileN);
        HWY_UNROLL(8)
        for (int r = 0; r < MR; ++r)
          ds[r][v] = hn::Mul(hn::LoadU(d, to.probabilities + (r * NV + v) * kTileN), hn::Sub(acc[r][v], delta));
        HWY_UNROLL(8)
        for (int r = 0; r < MR; r += 2)
          store_pairs(ds[r][v], r + 1 < MR ? ds[r + 1 < MR ? r + 1 : r][v] : hn::Zero(d),
                      to.ds_pairs + (i + r) / 2 * kPairsOfKeys + 2 * (j + v * kTileN));
      }
      store_rows(ds, to.ds + i * kRowOfKey + j, kRowOfKey);
    }
  };

  template <int MR, int NV>
  HWY_INLINE void block(std::int64_t i, std::int64_t j) const {
    tile_block<MR, NV>(k_q, Probabilities{*this}, i, j);
    tile_block<MR, NV>(v_do, Gradients{*this}, i, j);
  }
};

/// The tiles of backward; what backward_tile (attention_backward.cpp) calls. Pairs are neighbouring elements where they
/// are "(D / 2, rows)", neighbouring rows or keys where they are "(rows / 2, D)".
struct BackwardPairs {
  std::int64_t ldk;
  float scale;          // log2e / sqrt(Dk)
  float* dq;            // (rows, Dk)
  bf16 *q_t, *d_o_t;    // (Dk / 2, rows), (Dv / 2, rows) pairs
  bf16 *q, *d_o;        // (rows / 2, Dk), (rows / 2, Dv) pairs
  bf16 *k, *v;          // (keys, Dk), (keys, Dv)
  bf16* k_pairs;        // (keys / 2, Dk) pairs
  bf16 *p, *ds;         // (keys, rows)
  bf16* ds_pairs;       // (keys / 2, rows) pairs
  bf16* rows;           // (rows, Dk or Dv), while they are loaded
  float *lse, *delta;   // (rows), lse in log2 units
  float* block;         // a register block
  std::int32_t* token;  // (rows)
  std::int64_t size;

  BackwardPairs(const cpu::AttentionShape& a, float* base)
      : ldk(tile_stride(a.Dk)), scale(kLog2e / std::sqrt(static_cast<float>(a.Dk))) {
    TakeTiles take{base};
    dq = take(cpu::kTileRows, ldk);
    q_t = take_bf16(take, round_up(a.Dk, kTileN) / 2, kPairsOfKeys);
    d_o_t = take_bf16(take, round_up(a.Dv, kTileN) / 2, kPairsOfKeys);
    q = take_bf16(take, cpu::kTileRows / 2, pair_stride(a.Dk));
    d_o = take_bf16(take, cpu::kTileRows / 2, pair_stride(a.Dv));
    k = take_bf16(take, a.key_block, bf16_stride(a.Dk)), v = take_bf16(take, a.key_block, bf16_stride(a.Dv));
    k_pairs = take_bf16(take, a.key_block / 2, pair_stride(a.Dk));
    p = take_bf16(take, a.key_block, kRowOfKey), ds = take_bf16(take, a.key_block, kRowOfKey);
    ds_pairs = take_bf16(take, a.key_block / 2, kPairsOfKeys);
    rows = take_bf16(take, cpu::kTileRows, bf16_stride(std::max(a.Dk, a.Dv)));
    lse = take(1, cpu::kTileRows), delta = take(1, cpu::kTileRows);
    block = take(kTileMR, kTileNV * kTileN);
    token = reinterpret_cast<std::int32_t*>(take(1, cpu::kTileRows));
    size = take.size;
  }

  void load_rows(const cpu::BackwardArgs<bf16>& args, const cpu::RowTile& tile) const {
    const cpu::AttentionShape& a = args.shape;
    const std::int64_t columns = tile.columns();
    gather_rows(rows, bf16_stride(a.Dk), args.q, a, tile, a.Dk);
    transpose_rows(q_t, rows, columns, a.Dk);
    interleave_rows(q, pair_stride(a.Dk), rows, bf16_stride(a.Dk), columns, a.Dk);
    gather_rows(rows, bf16_stride(a.Dv), args.d_o, a, tile, a.Dv);
    transpose_rows(d_o_t, rows, columns, a.Dv);
    interleave_rows(d_o, pair_stride(a.Dv), rows, bf16_stride(a.Dv), columns, a.Dv);
    for (std::int64_t r = 0; r < columns; ++r) token[r] = static_cast<std::int32_t>((tile.n0 + r) / tile.G);
  }
  void load_keys(const cpu::BackwardArgs<bf16>& args, std::int64_t row, std::int64_t keys) const {
    const cpu::AttentionShape& a = args.shape;
    copy_rows(k, bf16_stride(a.Dk), args.k + row * a.Dk, a.Hkv * a.Dk, keys, a.Dk);
    copy_rows(v, bf16_stride(a.Dv), args.v + row * a.Dv, a.Hkv * a.Dv, keys, a.Dv);
    interleave_rows(k_pairs, pair_stride(a.Dk), k, bf16_stride(a.Dk), keys, a.Dk);
  }

  template <bool kMasked>
  HWY_NOINLINE void score_gradients(const cpu::AttentionShape& a, const cpu::RowTile& tile,
                                    const cpu::KeyRange& range) const {
    const std::int64_t c0 = range.c0;
    tile_walk(range.s1 - range.s0, range.c1 - c0,
              ScoreGradients<kMasked>{{(a.Dk + 1) / 2, k, bf16_stride(a.Dk), 2, q_t + 2 * c0, kPairsOfKeys},
                                      {(a.Dv + 1) / 2, v, bf16_stride(a.Dv), 2, d_o_t + 2 * c0, kPairsOfKeys},
                                      scale,
                                      lse + c0,
                                      delta + c0,
                                      {static_cast<std::int32_t>(range.s0), token + c0, tile.window},
                                      block,
                                      p + c0,
                                      ds + c0,
                                      ds_pairs + 2 * c0});
  }
  /// p, ds and ds_pairs of one step, 0 where a column does not see the key.
  void probabilities(const cpu::AttentionShape& a, const cpu::RowTile& tile, const cpu::KeyRange& range) const {
    range.masked ? score_gradients<true>(a, tile, range) : score_gradients<false>(a, tile, range);
  }
  HWY_NOINLINE void add_to_keys(const cpu::AttentionShape& a, const cpu::KeyRange& range, float* dk,
                                std::int64_t dk_step, float* dv, std::int64_t dv_step) const {
    const std::int64_t keys = range.s1 - range.s0, c0 = range.c0, pairs = (range.c1 - c0) / 2;
    tile_product(keys, round_up(a.Dv, kTileN),
                 PairOperands{pairs, p + c0, kRowOfKey, 2, d_o + c0 / 2 * pair_stride(a.Dv), pair_stride(a.Dv)},
                 AddSink(dv, dv_step));
    tile_product(keys, round_up(a.Dk, kTileN),
                 PairOperands{pairs, ds + c0, kRowOfKey, 2, q + c0 / 2 * pair_stride(a.Dk), pair_stride(a.Dk)},
                 AddSink(dk, dk_step));
  }
  HWY_NOINLINE void add_to_queries(const cpu::AttentionShape& a, const cpu::KeyRange& range) const {
    const std::int64_t keys = range.s1 - range.s0, c0 = range.c0;
    tile_product(range.c1 - c0, round_up(a.Dk, kTileN),
                 PairOperands{(keys + 1) / 2, ds_pairs + 2 * c0, 2, kPairsOfKeys, k_pairs, pair_stride(a.Dk)},
                 AddSink(dq + c0 * ldk, ldk));
  }
};

}  // namespace HWY_NAMESPACE
}  // namespace nsa
HWY_AFTER_NAMESPACE();
#endif

#endif  // per-target include guard
