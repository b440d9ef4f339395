// One tile of a branch against one block of keys, compiled once per SIMD target: the step of flash attention (online
// softmax, arXiv 2205.14135) forward and backward. Logits are kept in base 2: q is packed times log2(e)/sqrt(Dk), so p
// = 2^(s - m). Every row has its own number of visible keys, a prefix of the block; a row that sees none keeps its
// state.
#include <cmath>
#include <limits>
#include <utility>

#include "nsa/cpu/branch.h"
#include "ops/cpu/attention-inl.h"
#include "ops/cpu/tile-inl.h"

#if defined(NSA_NSA_CPU_BRANCH_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef NSA_NSA_CPU_BRANCH_INL_H_
#undef NSA_NSA_CPU_BRANCH_INL_H_
#else
#define NSA_NSA_CPU_BRANCH_INL_H_
#endif

HWY_BEFORE_NAMESPACE();
namespace nsa {
namespace HWY_NAMESPACE {
using cpu::BranchDims;
using cpu::PackedKeys;
static_assert(BranchDims::kPad == kTileN);

constexpr float kInfinity = std::numeric_limits<float>::infinity();

HWY_INLINE float query_scale(const BranchDims& dims) { return kLog2e / std::sqrt(static_cast<float>(dims.Dk)); }

/// to[0, n) = [to +] scale * from; then zeros up to n_padded. Neither side needs alignment; f32 or bf16, rounded once.
template <bool kAdd, class To, class From>
HWY_INLINE void copy_scaled(To* HWY_RESTRICT to, const From* HWY_RESTRICT from, std::int64_t n, std::int64_t n_padded,
                            float scale) {
  const TileTag d;
  const std::int64_t lanes = static_cast<std::int64_t>(hn::Lanes(d));
  const TileVec factor = hn::Set(d, scale);
  std::int64_t i = 0;
  for (; i + lanes <= n; i += lanes) {
    const TileVec x = load_tile(from + i);
    store_tile(kAdd ? hn::MulAdd(factor, x, load_tile(to + i)) : hn::Mul(factor, x), to + i);
  }
  for (; i < n; ++i) {
    const float x = static_cast<float>(from[i]);
    to[i] = To(kAdd ? static_cast<float>(to[i]) + scale * x : scale * x);
  }
  for (; i < n_padded; ++i) to[i] = To(0.0f);
}

/// to (D,lds) = from (keys,D)^T and zeros up to a whole vector of keys: what is computed with them is masked, but must
/// not be garbage that may be NaN.
template <class T>
void transpose_keys(float* to, std::int64_t lds, const T* from, std::int64_t stride, std::int64_t keys,
                    std::int64_t D) {
  transpose(to, lds, from, stride, keys, D);
  for (std::int64_t e = 0; e < D; ++e) std::fill(to + e * lds + keys, to + e * lds + round_up(keys, kTileN), 0.0f);
}

/// Logits of a block into p = 2^(s - m), with each row's maximum and sum, lane by lane.
struct SoftmaxRowsSink {
  float* p;
  std::int64_t stride;
  const float* m;
  float *top, *sum;
  template <int MR, int NV>
  HWY_INLINE void begin(std::int64_t, std::int64_t) const {}
  template <int MR, int NV>
  HWY_INLINE void finish(const TileVec (&acc)[MR][NV], std::int64_t i, std::int64_t j) const {
    const TileTag d;
    HWY_UNROLL(8) for (int r = 0; r < MR; ++r) {
      const TileVec reference = hn::Set(d, m[i + r]);
      float *top_r = top + (i + r) * kTileN, *sum_r = sum + (i + r) * kTileN;
      TileVec highest = hn::LoadU(d, top_r), total = hn::LoadU(d, sum_r);
      HWY_UNROLL(8) for (int v = 0; v < NV; ++v) {
        const TileVec probability = exp2_softmax(hn::Sub(acc[r][v], reference));
        hn::StoreU(probability, d, p + (i + r) * stride + j + v * static_cast<std::int64_t>(hn::Lanes(d)));
        highest = hn::Max(highest, acc[r][v]);
        total = hn::Add(total, probability);
      }
      hn::StoreU(highest, d, top_r);
      hn::StoreU(total, d, sum_r);
    }
  }
};

/// The tiles of one thread, floats, cut from one row of a (threads, floats) tensor. The same object without memory
/// counts the floats. PairTiles (branch_bf16-inl.h) are the same in bf16.
struct FloatTiles {
  static constexpr bool kPairs = false;
  static constexpr float score_scale = 1;  // the queries are scaled
  TakeTiles take;
  float *q = nullptr, *o = nullptr, *s = nullptr, *m = nullptr, *l = nullptr, *top = nullptr,
        *sum = nullptr;                                                    // forward; top, sum: a vector per row
  float *d_o = nullptr, *dq = nullptr, *lse2 = nullptr, *delta = nullptr;  // backward; p, then ds, is s

  static FloatTiles forward(const BranchDims& dims, float* base) {
    FloatTiles t{{base}};
    t.q = t.take(dims.rows, dims.ldk), t.o = t.take(dims.rows, dims.ldv), t.s = t.take(dims.rows, dims.lds);
    t.m = t.take(1, round_up(dims.rows, kTileN)), t.l = t.take(1, round_up(dims.rows, kTileN));
    t.top = t.take(dims.rows, kTileN), t.sum = t.take(dims.rows, kTileN);
    return t;
  }
  static FloatTiles backward(const BranchDims& dims, float* base) {
    FloatTiles t{{base}};
    t.q = t.take(dims.rows, dims.ldk), t.d_o = t.take(dims.rows, dims.ldv), t.dq = t.take(dims.rows, dims.ldk);
    t.s = t.take(dims.rows, dims.lds);
    t.lse2 = t.take(1, round_up(dims.rows, kTileN)), t.delta = t.take(1, round_up(dims.rows, kTileN));
    return t;
  }
  /// Queries and their logits alone (select.cpp).
  static FloatTiles scoring(const BranchDims& dims, std::int64_t rows, float* base) {
    FloatTiles t{{base}};
    t.q = t.take(rows, dims.ldk), t.s = t.take(rows, dims.lds);
    return t;
  }

  template <class T>
  static void pack_block(const BranchDims& dims, const PackedKeys& packed, float* block, const T* k, const T* v,
                         std::int64_t keys) {
    if (packed.forms.k) copy_rows(block + packed.k, dims.ldk, k, dims.Hkv * dims.Dk, keys, dims.Dk);
    if (packed.forms.v) copy_rows(block + packed.v, dims.ldv, v, dims.Hkv * dims.Dv, keys, dims.Dv);
    if (packed.forms.kt) transpose_keys(block + packed.kt, dims.lds, k, dims.Hkv * dims.Dk, keys, dims.Dk);
    if (packed.forms.vt) transpose_keys(block + packed.vt, dims.lds, v, dims.Hkv * dims.Dv, keys, dims.Dv);
  }

  /// A row of q, and of d_o, into row r.
  template <class T>
  HWY_INLINE void load_query(const BranchDims& dims, std::int64_t r, const T* q_r) const {
    copy_scaled<false>(q + r * dims.ldk, q_r, dims.Dk, dims.Dkp, query_scale(dims));
  }
  template <class T>
  HWY_INLINE void load_gradient(const BranchDims& dims, std::int64_t r, const T* d_o_r) const {
    copy_scaled<false>(d_o + r * dims.ldv, d_o_r, dims.Dv, dims.Dvp, 1.0f);
  }
  void all_loaded(const BranchDims&, std::int64_t) const {}

  // Logits of a block, in log2 units, into s.
  void logits(const BranchDims& dims, std::int64_t rows, std::int64_t width, const float* kt) const {
    tile_gemm<false>(rows, width, dims.Dk, q, dims.ldk, 1, kt, dims.lds, s, dims.lds);
  }
  void one_pass_softmax(const BranchDims& dims, std::int64_t rows, std::int64_t width, const float* kt) const {
    tile_product(rows, width, dims.Dk, q, dims.ldk, 1, kt, dims.lds, SoftmaxRowsSink{s, dims.lds, m, top, sum});
  }
  static float raised(float, float highest) { return highest; }
  void shrink_probabilities(const BranchDims& dims, std::int64_t r, std::int64_t width, TileVec shrink) const {
    const TileTag d;
    float* p = s + r * dims.lds;
    for (std::int64_t c = 0; c < width; c += static_cast<std::int64_t>(hn::Lanes(d)))
      hn::StoreU(hn::Mul(shrink, hn::LoadU(d, p + c)), d, p + c);
  }
  void two_pass_done(const BranchDims&, std::int64_t, std::int64_t) const {}
  void add_values(const BranchDims& dims, std::int64_t rows, std::int64_t keys, const float* v) const {
    tile_gemm<true>(rows, dims.Dvp, keys, s, dims.lds, 1, v, dims.ldv, o, dims.ldv);
  }

  /// What dk is summed up in units of: the queries were scaled.
  static float dk_unit(const BranchDims&) { return kLn2; }
  void backward_block(const BranchDims& dims, std::int64_t nq, const std::int32_t* keys, const PackedKeys& packed,
                      const float* block, float* dk, float* dv) const;
};

/// Fills every block; k (B,S,Hkv,Dk), v (B,S,Hkv,Dv) or null
template <class Tiles, class T>
void pack_keys(const Device& dev, const BranchDims& dims, const PackedKeys& packed, const T* k, const T* v) {
  parallel_for(dev.threads, dims.groups() * dims.blocks, [&](std::int64_t i, int) HWY_ATTR {
    const std::int64_t bh = i / dims.blocks, j = i % dims.blocks, first = dims.key_row(bh, j * dims.block);
    Tiles::pack_block(dims, packed, packed.data + i * packed.size, k + first * dims.Dk, v ? v + first * dims.Dv : v,
                      dims.keys_in(j));
  });
}

/// -inf from column `keys` on, in the vector at column c.
HWY_INLINE TileVec load_visible(const float* s, std::int64_t c, std::int64_t keys) {
  const TileTag d;
  const TileVec x = hn::LoadU(d, s + c);
  if (c + static_cast<std::int64_t>(hn::Lanes(d)) <= keys) return x;
  return hn::IfThenElse(hn::Lt(hn::Iota(d, 0.0f), hn::Set(d, static_cast<float>(keys - c))), x, hn::Set(d, -kInfinity));
}

/// s (width) logits of one row become p = 2^(s - m); m, l and o (Dvp) follow the maximum once it is kSlack above m, so
/// o is hardly ever rescaled.
HWY_INLINE void softmax_row(float* HWY_RESTRICT s, std::int64_t width, std::int64_t keys, float* HWY_RESTRICT o,
                            std::int64_t Dvp, float* m, float* l) {
  const TileTag d;
  const std::int64_t lanes = static_cast<std::int64_t>(hn::Lanes(d)), end = round_up(keys, lanes);
  for (std::int64_t c = end; c < width; c += lanes) hn::StoreU(hn::Zero(d), d, s + c);
  if (keys == 0) return;
  TileVec top0 = hn::Set(d, -kInfinity), top1 = top0;
  std::int64_t c = 0;
  for (; c + 2 * lanes <= keys; c += 2 * lanes)
    top0 = hn::Max(top0, hn::LoadU(d, s + c)), top1 = hn::Max(top1, hn::LoadU(d, s + c + lanes));
  for (; c < end; c += lanes) top0 = hn::Max(top0, load_visible(s, c, keys));
  const float top = hn::GetLane(hn::MaxOfLanes(d, hn::Max(top0, top1)));
  if (top > *m + kSlack) {
    const TileVec shrink = exp2_softmax(hn::Set(d, *m - top));  // 0 for the first block: m was -inf
    *m = top;
    *l *= hn::GetLane(shrink);
    for (std::int64_t e = 0; e < Dvp; e += lanes) hn::StoreU(hn::Mul(shrink, hn::LoadU(d, o + e)), d, o + e);
  }
  const TileVec reference = hn::Set(d, *m);
  TileVec sum = hn::Zero(d);
  for (c = 0; c < end; c += lanes) {
    const TileVec p = exp2_softmax(hn::Sub(load_visible(s, c, keys), reference));
    sum = hn::Add(sum, p);
    hn::StoreU(p, d, s + c);
  }
  *l += hn::GetLane(hn::SumOfLanes(d, sum));
}

/// The probabilities of a block that every row sees whole, in one pass; `width` keys, a multiple of kTileN. False: a
/// row has no reference yet, or its logits leapt; the block is then to be done in two passes.
template <class Tiles>
HWY_INLINE bool softmax_rows(const BranchDims& dims, const Tiles& tile, std::int64_t rows, std::int64_t width,
                             const float* kt) {
  const TileTag d;
  const std::int64_t lanes = static_cast<std::int64_t>(hn::Lanes(d));
  const TileVec scale = hn::Set(d, tile.score_scale);
  if (std::any_of(tile.m, tile.m + rows, [](float m) { return m == -kInfinity; })) return false;
  std::fill_n(tile.top, rows * kTileN, -kInfinity);
  std::fill_n(tile.sum, rows * kTileN, 0.0f);
  tile.one_pass_softmax(dims, rows, width, kt);
  TileVec rise = hn::Zero(d);
  for (std::int64_t r = 0; r < rows; ++r)
    rise = hn::Max(rise, hn::Sub(hn::Mul(hn::LoadU(d, tile.top + r * kTileN), scale), hn::Set(d, tile.m[r])));
  const float highest = hn::GetLane(hn::MaxOfLanes(d, rise));
  if (!(highest <= kLeap)) return false;
  for (std::int64_t r = 0; r < rows; ++r)
    tile.l[r] += hn::GetLane(hn::SumOfLanes(d, hn::LoadU(d, tile.sum + r * kTileN)));
  if (highest <= kSlack) return true;
  for (std::int64_t r = 0; r < rows; ++r) {
    const float top = hn::GetLane(hn::MaxOfLanes(d, hn::Mul(hn::LoadU(d, tile.top + r * kTileN), scale)));
    if (!(top > tile.m[r] + kSlack)) continue;
    const float m_new = tile.raised(tile.m[r], top);
    const TileVec shrink = exp2_softmax(hn::Set(d, tile.m[r] - m_new));
    float* o = tile.o + r * dims.ldv;
    for (std::int64_t e = 0; e < dims.Dvp; e += lanes) hn::StoreU(hn::Mul(shrink, hn::LoadU(d, o + e)), d, o + e);
    tile.shrink_probabilities(dims, r, width, shrink);
    tile.l[r] *= hn::GetLane(shrink);
    tile.m[r] = m_new;
  }
  return true;
}

/// Whether every query sees the same, whole number of vectors of keys: then nothing is masked.
HWY_INLINE bool all_see_whole(std::int64_t nq, const std::int32_t* keys, std::int64_t width) {
  return std::all_of(keys, keys + nq, [width](std::int32_t n) { return n == width; });
}

/// nq queries of a tile against one packed block; keys[i]: how many of its keys query i sees.
template <class Tiles>
HWY_NOINLINE void forward_block(const BranchDims& dims, const Tiles& tile, std::int64_t nq, const std::int32_t* keys,
                                const PackedKeys& packed, const float* block) {
  const std::int64_t top = *std::max_element(keys, keys + nq), rows = nq * dims.G, width = round_up(top, kTileN);
  if (top == 0) return;
  if (!all_see_whole(nq, keys, width) || !softmax_rows(dims, tile, rows, width, block + packed.kt)) {
    tile.logits(dims, rows, width, block + packed.kt);
    for (std::int64_t i = 0, r = 0; i < nq; ++i)
      for (std::int64_t g = 0; g < dims.G; ++g, ++r)
        softmax_row(tile.s + r * dims.lds, width, keys[i], tile.o + r * dims.ldv, dims.Dvp, tile.m + r, tile.l + r);
    tile.two_pass_done(dims, rows, width);
  }
  tile.add_values(dims, rows, top, block + packed.v);
}

/// A finished row: o (Dv) = accumulator / l, lse natural; a row that saw nothing gives 0 and +inf.
template <class T>
HWY_INLINE void finish_row(T* o, float* lse, const float* accumulator, std::int64_t Dv, float m, float l) {
  if (m == -kInfinity && l == 0) {
    std::fill_n(o, Dv, T(0.0f));
    *lse = kInfinity;
    return;
  }
  copy_scaled<false>(o, accumulator, Dv, Dv, 1.0f / l);
  *lse = kLn2 * (m + std::log2(l));
}

/// s (width) logits of one row become p, 0 from column `keys` on.
HWY_INLINE void probability_row(float* HWY_RESTRICT s, std::int64_t width, std::int64_t keys, float lse2) {
  const TileTag d;
  const std::int64_t lanes = static_cast<std::int64_t>(hn::Lanes(d)), end = round_up(keys, lanes);
  const TileVec reference = hn::Set(d, lse2);
  for (std::int64_t c = 0; c < end; c += lanes)
    hn::StoreU(exp2_softmax(hn::Sub(load_visible(s, c, keys), reference)), d, s + c);
  for (std::int64_t c = end; c < width; c += lanes) hn::StoreU(hn::Zero(d), d, s + c);
}

/// Adds to dq (in units of sqrt(Dk)), dk (block,ldk; in units of dk_unit) and dv (block,ldv).
inline HWY_NOINLINE void FloatTiles::backward_block(const BranchDims& dims, std::int64_t nq, const std::int32_t* keys,
                                                    const PackedKeys& packed, const float* block, float* dk,
                                                    float* dv) const {
  const std::int64_t visible = *std::max_element(keys, keys + nq), rows = nq * dims.G,
                     width = round_up(visible, kTileN);
  if (visible == 0) return;
  if (all_see_whole(nq, keys, width)) {
    tile_product(rows, width, dims.Dk, q, dims.ldk, 1, block + packed.kt, dims.lds,
                 ProbabilitySink<Queries::rows>{s, dims.lds, lse2});
  } else {
    logits(dims, rows, width, block + packed.kt);
    for (std::int64_t i = 0, r = 0; i < nq; ++i)
      for (std::int64_t g = 0; g < dims.G; ++g, ++r) probability_row(s + r * dims.lds, width, keys[i], lse2[r]);
  }
  tile_gemm<true>(visible, dims.Dvp, rows, s, 1, dims.lds, d_o, dims.ldv, dv, dims.ldv);
  tile_product(rows, width, dims.Dv, d_o, dims.ldv, 1, block + packed.vt, dims.lds,
               ScoreGradientSink<Queries::rows>{s, dims.lds, delta});
  tile_gemm<true>(visible, dims.Dkp, rows, s, 1, dims.lds, q, dims.ldk, dk, dims.ldk);
  tile_gemm<true>(rows, dims.Dkp, visible, s, dims.lds, 1, block + packed.k, dims.ldk, dq, dims.ldk);
}

/// The saved rows of query t go to tile rows [r, r + G).
template <class Tiles, class T>
HWY_INLINE void load_query(const BranchDims& dims, const Tiles& tile, std::int64_t r, const T* q, std::int64_t row) {
  for (std::int64_t g = 0; g < dims.G; ++g) tile.load_query(dims, r + g, q + (row + g) * dims.Dk);
}

/// What a backward pass reads of its queries, and dq, which may be an f32 sum of what is rounded later.
template <class T, class Dq>
struct QueryGradients {
  Dq* dq;
  const T* d_o;
  const float *delta, *lse;
  const T* q;
};

template <class Tiles, class T, class Dq>
HWY_INLINE void load_query_backward(const BranchDims& dims, const Tiles& tile, std::int64_t r,
                                    const QueryGradients<T, Dq>& x, std::int64_t row) {
  load_query(dims, tile, r, x.q, row);
  for (std::int64_t g = 0; g < dims.G; ++g) {
    tile.load_gradient(dims, r + g, x.d_o + (row + g) * dims.Dv);
    tile.lse2[r + g] = x.lse[row + g] * kLog2e;
    tile.delta[r + g] = x.delta[row + g];
  }
  std::fill_n(tile.dq + r * dims.ldk, dims.G * dims.ldk, 0.0f);
}
/// dq of query t = [dq +] its tile rows
template <bool kAdd, class Tiles, class Dq>
HWY_INLINE void store_dq(const BranchDims& dims, const Tiles& tile, std::int64_t r, Dq* dq, std::int64_t row) {
  const float scale = 1.0f / std::sqrt(static_cast<float>(dims.Dk));
  for (std::int64_t g = 0; g < dims.G; ++g)
    copy_scaled<kAdd>(dq + (row + g) * dims.Dk, tile.dq + (r + g) * dims.ldk, dims.Dk, dims.Dk, scale);
}
/// dk, dv of block j (accumulators dk_acc (block,ldk), dv_acc (block,ldv)) to their rows
template <class Tiles, class T>
HWY_INLINE void store_dkv(const BranchDims& dims, std::int64_t bh, std::int64_t j, T* dk, T* dv, const float* dk_acc,
                          const float* dv_acc) {
  for (std::int64_t s = 0; s < dims.keys_in(j); ++s) {
    const std::int64_t row = dims.key_row(bh, j * dims.block + s);
    copy_scaled<false>(dk + row * dims.Dk, dk_acc + s * dims.ldk, dims.Dk, dims.Dk, Tiles::dk_unit(dims));
    copy_scaled<false>(dv + row * dims.Dv, dv_acc + s * dims.ldv, dims.Dv, dims.Dv, 1.0f);
  }
}

/// Consecutive queries t0, ..., t0 + nq - 1 against blocks 0, 1, ..., up to the first that none of them sees; count(j,
/// keys) says how many keys of block j each sees. Writes o (B,T,H,Dv) and lse (B,T,H).
template <class Tiles, class Count, class T>
HWY_INLINE void forward_walk(const BranchDims& dims, const Tiles& tile, std::int64_t bh, std::int64_t t0,
                             std::int64_t nq, const Count& count, const PackedKeys& packed, T* o, float* lse,
                             const T* q) {
  const std::int64_t rows = nq * dims.G;
  std::int32_t keys[BranchDims::kTileRows] = {};
  for (std::int64_t i = 0; i < nq; ++i) load_query(dims, tile, i * dims.G, q, dims.row(bh, t0 + i));
  std::fill_n(tile.o, rows * dims.ldv, 0.0f);
  std::fill_n(tile.m, rows, -kInfinity);
  std::fill_n(tile.l, rows, 0.0f);
  for (std::int64_t j = 0; j < dims.blocks; ++j) {
    count(j, keys);
    if (keys[nq - 1] == 0) break;  // the last query sees most
    forward_block(dims, tile, nq, keys, packed, packed.at(dims, bh, j));
  }
  for (std::int64_t r = 0; r < rows; ++r) {
    const std::int64_t row = dims.row(bh, t0 + r / dims.G) + r % dims.G;
    finish_row(o + row * dims.Dv, lse + row, tile.o + r * dims.ldv, dims.Dv, tile.m[r], tile.l[r]);
  }
}

/// The same walk backward over blocks [j0, j1); sums(j) gives {dk, dv} of a block, which are added to, and so is dq if
/// kAddDq.
template <bool kAddDq, class Tiles, class Count, class Sums, class T, class Dq>
HWY_INLINE void backward_walk(const BranchDims& dims, const Tiles& tile, std::int64_t bh, std::int64_t t0,
                              std::int64_t nq, std::int64_t j0, std::int64_t j1, const Count& count,
                              const PackedKeys& packed, const QueryGradients<T, Dq>& x, const Sums& sums) {
  std::int32_t keys[BranchDims::kTileRows] = {};
  for (std::int64_t i = 0; i < nq; ++i) load_query_backward(dims, tile, i * dims.G, x, dims.row(bh, t0 + i));
  tile.all_loaded(dims, nq * dims.G);
  for (std::int64_t j = j0; j < j1; ++j) {
    count(j, keys);
    if (keys[nq - 1] == 0) break;
    const auto [dk, dv] = sums(j);
    tile.backward_block(dims, nq, keys, packed, packed.at(dims, bh, j), dk, dv);
  }
  for (std::int64_t i = 0; i < nq; ++i) store_dq<kAddDq>(dims, tile, i * dims.G, x.dq, dims.row(bh, t0 + i));
}

}  // namespace HWY_NAMESPACE
}  // namespace nsa
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
