// The tiles of a branch in bf16 on CPUs that multiply it (tile_bf16-inl.h), and the choice between them and floats.
// Logits are scaled after their product; P and dS are rounded to bf16 for the products that follow.
#include "nsa/cpu/branch-inl.h"
#include "ops/cpu/attention_backward_bf16-inl.h"

#if defined(NSA_NSA_CPU_BRANCH_BF16_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef NSA_NSA_CPU_BRANCH_BF16_INL_H_
#undef NSA_NSA_CPU_BRANCH_BF16_INL_H_
#else
#define NSA_NSA_CPU_BRANCH_BF16_INL_H_
#endif

HWY_BEFORE_NAMESPACE();
namespace nsa {
namespace HWY_NAMESPACE {

#if HWY_TARGET == HWY_AVX3
/// to (D / 2, keys) pairs of neighbouring elements = from (keys,D)^T, zeros around it up to whole vectors.
inline void transpose_pairs_of_keys(bf16* to, std::int64_t to_stride, const bf16* from, std::int64_t stride,
                                    std::int64_t keys, std::int64_t D) {
  constexpr std::int64_t kElements = 64;
  alignas(64) bf16 rows[kTileN * kElements];
  for (std::int64_t s = 0; s < keys; s += kTileN)
    for (std::int64_t e = 0; e < D; e += kElements) {
      const std::int64_t n = std::min(kTileN, keys - s), width = std::min(kElements, D - e);
      copy_rows(rows, kElements, from + s * stride + e, stride, n, width);
      std::fill(rows + n * kElements, rows + kTileN * kElements, bf16());
      transpose_pairs(to + e / 2 * to_stride + 2 * s, to_stride, rows, kElements, kTileN, round_up(width, kTileN));
    }
}

/// Products into probabilities 2^(scale x - m), rows of bf16, with each row's maximum, not scaled, and sum, lane by
/// lane.
struct SoftmaxRowsOfPairsSink {
  bf16* p;
  std::int64_t stride;
  const float* m;
  float *top, *sum;
  float scale;
  template <int MR, int NV>
  HWY_INLINE void begin(std::int64_t, std::int64_t) const {}
  template <int MR, int NV>
  HWY_INLINE void finish(const TileVec (&acc)[MR][NV], std::int64_t i, std::int64_t j) const {
    const TileTag d;
    const TileVec factor = hn::Set(d, scale);
    TileVec probability[MR][NV];
    HWY_UNROLL(8) for (int r = 0; r < MR; ++r) {
      const TileVec reference = hn::Set(d, m[i + r]);
      float *top_r = top + (i + r) * kTileN, *sum_r = sum + (i + r) * kTileN;
      TileVec highest = hn::LoadU(d, top_r), total = hn::LoadU(d, sum_r);
      HWY_UNROLL(8) for (int v = 0; v < NV; ++v) {
        probability[r][v] = exp2_softmax(hn::MulSub(acc[r][v], factor, reference));
        highest = hn::Max(highest, acc[r][v]);
        total = hn::Add(total, probability[r][v]);
      }
      hn::StoreU(highest, d, top_r);
      hn::StoreU(total, d, sum_r);
    }
    store_rows(probability, p + i * stride + j, stride);
  }
};

/// What a register block does in backward, rows x keys: its probabilities, into `probabilities` as floats and into
/// p_pairs by pairs of rows; then the gradient by its logits, P (dP - delta), as rows and as pairs of rows.
template <bool kMasked>
struct LogitGradients {
  PairOperands q_k, do_v;
  float scale;
  const float *lse2, *delta;
  const std::int32_t* visible;  ///< keys that each row sees
  float* probabilities;         ///< (kTileMR, kTileNV) vectors
  bf16 *p_pairs, *ds, *ds_pairs;
  std::int64_t pairs_stride, ds_stride;

  template <int MR, int NV>
  HWY_INLINE void store_pairs_of_rows(const TileVec (&x)[MR][NV], bf16* to, std::int64_t i, std::int64_t j) const {
    HWY_UNROLL(8)
    for (int r = 0; r < MR; r += 2) HWY_UNROLL(8)
    for (int v = 0; v < NV; ++v)
      store_pairs(x[r][v], r + 1 < MR ? x[r + 1 < MR ? r + 1 : r][v] : hn::Zero(TileTag()),
                  to + (i + r) / 2 * pairs_stride + 2 * (j + v * kTileN));
  }
  struct Probabilities {
    const LogitGradients& to;
    template <int MR, int NV>
    HWY_INLINE void begin(std::int64_t, std::int64_t) const {}
    template <int MR, int NV>
    HWY_INLINE void finish(const TileVec (&acc)[MR][NV], std::int64_t i, std::int64_t j) const {
      const TileTag d;
      const TileVec factor = hn::Set(d, to.scale);
      TileVec p[MR][NV];
      HWY_UNROLL(8) for (int r = 0; r < MR; ++r) {
        const TileVec reference = hn::Set(d, to.lse2[i + r]);
        HWY_UNROLL(8) for (int v = 0; v < NV; ++v) {
          p[r][v] = exp2_softmax(hn::MulSub(acc[r][v], factor, reference));
          if (kMasked) {
            const auto column = hn::Iota(d, static_cast<float>(j + v * kTileN));
            p[r][v] = hn::IfThenElseZero(hn::Lt(column, hn::Set(d, static_cast<float>(to.visible[i + r]))), p[r][v]);
          }
          hn::StoreU(p[r][v], d, to.probabilities + (r * NV + v) * kTileN);
        }
      }
      to.store_pairs_of_rows(p, to.p_pairs, i, j);
    }
  };
  struct Gradients {
    const LogitGradients& to;
    template <int MR, int NV>
    HWY_INLINE void begin(std::int64_t, std::int64_t) const {}
    template <int MR, int NV>
    HWY_INLINE void finish(const TileVec (&acc)[MR][NV], std::int64_t i, std::int64_t j) const {
      const TileTag d;
      TileVec ds[MR][NV];
      HWY_UNROLL(8) for (int r = 0; r < MR; ++r) {
        const TileVec delta = hn::Set(d, to.delta[i + r]);
        HWY_UNROLL(8)
        for (int v = 0; v < NV; ++v)
          ds[r][v] = hn::Mul(hn::LoadU(d, to.probabilities + (r * NV + v) * kTileN), hn::Sub(acc[r][v], delta));
      }
      to.store_pairs_of_rows(ds, to.ds_pairs, i, j);
      store_rows(ds, to.ds + i * to.ds_stride + j, to.ds_stride);
    }
  };

  template <int MR, int NV>
  HWY_INLINE void block(std::int64_t i, std::int64_t j) const {
    tile_block<MR, NV>(q_k, Probabilities{*this}, i, j);
    tile_block<MR, NV>(do_v, Gradients{*this}, i, j);
  }
};

/// As FloatTiles. Pairs are neighbouring rows.
struct PairTiles {
  static constexpr bool kPairs = true;
  TakeTiles take{};
  float score_scale = 0;            // log2e / sqrt(Dk)
  bf16 *q = nullptr, *p = nullptr;  // (rows, Dk), (rows, keys)
  float *o = nullptr, *s = nullptr, *m = nullptr, *l = nullptr, *top = nullptr, *sum = nullptr;
  bf16 *d_o = nullptr, *ds = nullptr;  // (rows, Dv), (rows, keys)
  bf16 *q_pairs = nullptr, *d_o_pairs = nullptr, *p_pairs = nullptr, *ds_pairs = nullptr;
  float *dq = nullptr, *lse2 = nullptr, *delta = nullptr, *probabilities = nullptr;
  std::int32_t* visible = nullptr;  // (rows)

  static PairTiles forward(const BranchDims& dims, float* base) {
    PairTiles t = queries(dims, dims.rows, base);
    t.p = take_bf16(t.take, dims.rows, bf16_stride(dims.block));
    t.o = t.take(dims.rows, dims.ldv), t.s = t.take(dims.rows, dims.lds);
    t.m = t.take(1, round_up(dims.rows, kTileN)), t.l = t.take(1, round_up(dims.rows, kTileN));
    t.top = t.take(dims.rows, kTileN), t.sum = t.take(dims.rows, kTileN);
    return t;
  }
  static PairTiles backward(const BranchDims& dims, float* base) {
    const std::int64_t pairs = (dims.rows + 1) / 2;
    PairTiles t = queries(dims, dims.rows, base);
    t.d_o = take_bf16(t.take, dims.rows, bf16_stride(dims.Dv)),
    t.ds = take_bf16(t.take, dims.rows, bf16_stride(dims.block));
    t.q_pairs = take_bf16(t.take, pairs, 2 * dims.ldk), t.d_o_pairs = take_bf16(t.take, pairs, 2 * dims.ldv);
    t.p_pairs = take_bf16(t.take, pairs, 2 * dims.lds), t.ds_pairs = take_bf16(t.take, pairs, 2 * dims.lds);
    t.dq = t.take(dims.rows, dims.ldk);
    t.lse2 = t.take(1, round_up(dims.rows, kTileN)), t.delta = t.take(1, round_up(dims.rows, kTileN));
    t.probabilities = t.take(kTileMR, kTileNV * kTileN);
    t.visible = reinterpret_cast<std::int32_t*>(t.take(1, round_up(dims.rows, kTileN)));
    return t;
  }
  static PairTiles scoring(const BranchDims& dims, std::int64_t rows, float* base) {
    PairTiles t = queries(dims, rows, base);
    t.s = t.take(rows, dims.lds);
    return t;
  }

  static void pack_block(const BranchDims& dims, const PackedKeys& packed, float* block, const bf16* k, const bf16* v,
                         std::int64_t keys) {
    const auto at = [&](std::int64_t offset) { return reinterpret_cast<bf16*>(block + offset); };
    const std::int64_t k_step = dims.Hkv * dims.Dk, v_step = dims.Hkv * dims.Dv;
    if (packed.forms.k) interleave_rows(at(packed.k), 2 * dims.ldk, k, k_step, keys, dims.Dk);
    if (packed.forms.v) interleave_rows(at(packed.v), 2 * dims.ldv, v, v_step, keys, dims.Dv);
    if (packed.forms.kt) transpose_pairs_of_keys(at(packed.kt), 2 * dims.lds, k, k_step, keys, dims.Dk);
    if (packed.forms.vt) transpose_pairs_of_keys(at(packed.vt), 2 * dims.lds, v, v_step, keys, dims.Dv);
  }

  HWY_INLINE void load_query(const BranchDims& dims, std::int64_t r, const bf16* q_r) const {
    copy_rows(q + r * bf16_stride(dims.Dk), 0, q_r, 0, 1, dims.Dk);
  }
  HWY_INLINE void load_gradient(const BranchDims& dims, std::int64_t r, const bf16* d_o_r) const {
    copy_rows(d_o + r * bf16_stride(dims.Dv), 0, d_o_r, 0, 1, dims.Dv);
  }
  void all_loaded(const BranchDims& dims, std::int64_t rows) const {
    interleave_rows(q_pairs, 2 * dims.ldk, q, bf16_stride(dims.Dk), rows, dims.Dk);
    interleave_rows(d_o_pairs, 2 * dims.ldv, d_o, bf16_stride(dims.Dv), rows, dims.Dv);
  }

  PairOperands q_times(const BranchDims& dims, const float* kt) const {
    return {(dims.Dk + 1) / 2, q, bf16_stride(dims.Dk), 2, reinterpret_cast<const bf16*>(kt), 2 * dims.lds};
  }
  void logits(const BranchDims& dims, std::int64_t rows, std::int64_t width, const float* kt) const {
    tile_product(rows, width, q_times(dims, kt), ScaleSink(s, dims.lds, score_scale));
  }
  void one_pass_softmax(const BranchDims& dims, std::int64_t rows, std::int64_t width, const float* kt) const {
    tile_product(rows, width, q_times(dims, kt),
                 SoftmaxRowsOfPairsSink{p, bf16_stride(dims.block), m, top, sum, score_scale});
  }
  /// By a power of two, so that probabilities shrink without being rounded again.
  static float raised(float m, float highest) { return m + std::ceil(highest - m); }
  void shrink_probabilities(const BranchDims& dims, std::int64_t r, std::int64_t width, TileVec shrink) const {
    bf16* p_r = p + r * bf16_stride(dims.block);
    for (std::int64_t c = 0; c < width; c += kTileN) store_tile(hn::Mul(shrink, load_tile(p_r + c)), p_r + c);
  }
  void two_pass_done(const BranchDims& dims, std::int64_t rows, std::int64_t width) const {
    for (std::int64_t r = 0; r < rows; ++r)
      for (std::int64_t c = 0; c < width; c += kTileN)
        store_tile(load_tile(s + r * dims.lds + c), p + r * bf16_stride(dims.block) + c);
  }
  void add_values(const BranchDims& dims, std::int64_t rows, std::int64_t keys, const float* v) const {
    tile_product(
        rows, dims.Dvp,
        PairOperands{(keys + 1) / 2, p, bf16_stride(dims.block), 2, reinterpret_cast<const bf16*>(v), 2 * dims.ldv},
        AddSink(o, dims.ldv));
  }

  static float dk_unit(const BranchDims& dims) { return 1 / std::sqrt(static_cast<float>(dims.Dk)); }
  template <bool kMasked>
  HWY_NOINLINE void logit_gradients(const BranchDims& dims, std::int64_t rows, std::int64_t width, const float* kt,
                                    const float* vt) const {
    tile_walk(rows, width,
              LogitGradients<kMasked>{
                  q_times(dims, kt),
                  {(dims.Dv + 1) / 2, d_o, bf16_stride(dims.Dv), 2, reinterpret_cast<const bf16*>(vt), 2 * dims.lds},
                  score_scale,
                  lse2,
                  delta,
                  visible,
                  probabilities,
                  p_pairs,
                  ds,
                  ds_pairs,
                  2 * dims.lds,
                  bf16_stride(dims.block)});
  }
  HWY_NOINLINE void backward_block(const BranchDims& dims, std::int64_t nq, const std::int32_t* keys,
                                   const PackedKeys& packed, const float* block, float* dk, float* dv) const {
    const std::int64_t most = *std::max_element(keys, keys + nq), rows = nq * dims.G, width = round_up(most, kTileN),
                       pairs = (rows + 1) / 2;
    if (most == 0) return;
    if (all_see_whole(nq, keys, width)) {
      logit_gradients<false>(dims, rows, width, block + packed.kt, block + packed.vt);
    } else {
      for (std::int64_t r = 0; r < rows; ++r) visible[r] = keys[r / dims.G];
      logit_gradients<true>(dims, rows, width, block + packed.kt, block + packed.vt);
    }
    tile_product(most, dims.Dvp, PairOperands{pairs, p_pairs, 2, 2 * dims.lds, d_o_pairs, 2 * dims.ldv},
                 AddSink(dv, dims.ldv));
    tile_product(most, dims.Dkp, PairOperands{pairs, ds_pairs, 2, 2 * dims.lds, q_pairs, 2 * dims.ldk},
                 AddSink(dk, dims.ldk));
    tile_product(rows, dims.Dkp,
                 PairOperands{(most + 1) / 2, ds, bf16_stride(dims.block), 2,
                              reinterpret_cast<const bf16*>(block + packed.k), 2 * dims.ldk},
                 AddSink(dq, dims.ldk));
  }

 private:
  static PairTiles queries(const BranchDims& dims, std::int64_t rows, float* base) {
    PairTiles t;
    t.take.base = base;
    t.score_scale = query_scale(dims);
    t.q = take_bf16(t.take, rows, bf16_stride(dims.Dk));
    return t;
  }
};
#endif

/// f<Tiles, T>(): T and what it is multiplied in.
template <class F>
void dispatch_tiles(DType type, F&& f) {
#if HWY_TARGET == HWY_AVX3
  if (type == DType::bf16 && cpu::native_bf16()) return f.template operator()<PairTiles, bf16>();
#endif
  dispatch_type(type, [&]<class T>() { f.template operator()<FloatTiles, T>(); });
}

}  // namespace HWY_NAMESPACE
}  // namespace nsa
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
