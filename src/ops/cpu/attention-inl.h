// What attention forward and backward share, compiled once per SIMD target: rows to and from transposed tiles, and the
// mask of a score tile.
#include "ops/cpu/attention_tiles.h"
#include "ops/cpu/row-inl.h"
#include "ops/cpu/tile-inl.h"

#include <cstring>
#include <limits>

#if defined(NSA_OPS_CPU_ATTENTION_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef NSA_OPS_CPU_ATTENTION_INL_H_
#undef NSA_OPS_CPU_ATTENTION_INL_H_
#else
#define NSA_OPS_CPU_ATTENTION_INL_H_
#endif

HWY_BEFORE_NAMESPACE();
namespace nsa {
namespace HWY_NAMESPACE {

constexpr float kLog2e = 1.4426950408889634f, kLn2 = 0.6931471805599453f;

// Row length of a tile buffer: an odd number of cache lines, so that the rows of a panel do not fall into the same few
// cache sets.
constexpr std::int64_t tile_stride(std::int64_t n) { return round_up(n, kTileN) | kTileN; }

constexpr std::int64_t kScoreStride = tile_stride(cpu::kTileRows);

/// Cuts one thread's tiles from its scratch; without memory it only counts the floats.
struct TakeTiles {
  float* base;
  std::int64_t size = 0;
  float* operator()(std::int64_t rows, std::int64_t stride) {
    float* at = base ? base + size : nullptr;
    size += rows * stride;
    return at;
  }
};

/// 4x4 transpose.
template <class T>
HWY_INLINE void transpose4(const T* r0, const T* r1, const T* r2, const T* r3, float* c0, float* c1, float* c2,
                           float* c3) {
#if HWY_TARGET == HWY_SCALAR
  for (int i = 0; i < 4; ++i) {
    float* to = i == 0 ? c0 : i == 1 ? c1 : i == 2 ? c2 : c3;
    to[0] = static_cast<float>(r0[i]), to[1] = static_cast<float>(r1[i]);
    to[2] = static_cast<float>(r2[i]), to[3] = static_cast<float>(r3[i]);
  }
#else
  const hn::FixedTag<float, 4> d;
  const auto a = load_floats(d, r0), b = load_floats(d, r1), c = load_floats(d, r2), e = load_floats(d, r3);
  const auto ac0 = hn::InterleaveLower(d, a, c), ac1 = hn::InterleaveUpper(d, a, c), be0 = hn::InterleaveLower(d, b, e),
             be1 = hn::InterleaveUpper(d, b, e);
  hn::StoreU(hn::InterleaveLower(d, ac0, be0), d, c0);
  hn::StoreU(hn::InterleaveUpper(d, ac0, be0), d, c1);
  hn::StoreU(hn::InterleaveLower(d, ac1, be1), d, c2);
  hn::StoreU(hn::InterleaveUpper(d, ac1, be1), d, c3);
#endif
}

/// y (C,R) = x (R,C)^T with row strides; x f32 or bf16.
template <class T>
void transpose(float* y, std::int64_t y_stride, const T* x, std::int64_t x_stride, std::int64_t R, std::int64_t C) {
  std::int64_t r = 0;
  for (; r + 4 <= R; r += 4) {
    const T* xr = x + r * x_stride;
    std::int64_t c = 0;
    for (; c + 4 <= C; c += 4) {
      float* yc = y + c * y_stride + r;
      transpose4(xr + c, xr + x_stride + c, xr + 2 * x_stride + c, xr + 3 * x_stride + c, yc, yc + y_stride,
                 yc + 2 * y_stride, yc + 3 * y_stride);
    }
    for (; c < C; ++c)
      for (std::int64_t i = 0; i < 4; ++i) y[c * y_stride + r + i] = static_cast<float>(xr[i * x_stride + c]);
  }
  for (; r < R; ++r)
    for (std::int64_t c = 0; c < C; ++c) y[c * y_stride + r] = static_cast<float>(x[r * x_stride + c]);
}

/// y (n) = x (n)
inline void copy_row(float* y, const float* x, std::int64_t n) {
  std::memcpy(y, x, static_cast<std::size_t>(n) * sizeof(float));
}
inline void copy_row(bf16* y, const bf16* x, std::int64_t n) {
  std::memcpy(y, x, static_cast<std::size_t>(n) * sizeof(bf16));
}
inline void copy_row(float* y, const bf16* x, std::int64_t n) {
  for_row(n, [&](auto at, std::int64_t i) HWY_ATTR { at.store(at.load(x + i), y + i); });
}

/// Rows of D elements into rows of stride `y_stride`, filled with zeros to a whole number of vectors.
template <class Y, class T>
void copy_rows(Y* y, std::int64_t y_stride, const T* x, std::int64_t x_stride, std::int64_t rows, std::int64_t D) {
  const std::int64_t padding = round_up(D, kTileN) - D;
  for (std::int64_t r = 0; r < rows; ++r) {
    copy_row(y + r * y_stride, x + r * x_stride, D);
    std::memset(y + r * y_stride + D, 0, static_cast<std::size_t>(padding) * sizeof(Y));
  }
}

/// The query rows of a tile, out of a (B,T,H,D) tensor, into y (columns(), y_stride); rows beyond the tile are zeros.
template <class Y, class T>
void gather_rows(Y* y, std::int64_t y_stride, const T* x, const cpu::AttentionShape& a, const cpu::RowTile& tile,
                 std::int64_t D) {
  for (std::int64_t r = 0; r < tile.rows; ++r)
    copy_rows(y + r * y_stride, y_stride, x + a.query_row(tile.unit, tile.n0 + r) * D, D, 1, D);
  for (std::int64_t r = tile.rows; r < tile.columns(); ++r)
    std::memset(y + r * y_stride, 0, static_cast<std::size_t>(y_stride) * sizeof(Y));
}

/// y *= factor over `rows` rows of n floats, n a multiple of kTileN.
inline void scale_rows(float* y, std::int64_t stride, std::int64_t rows, std::int64_t n, float factor) {
  const TileTag d;
  const std::int64_t lanes = static_cast<std::int64_t>(hn::Lanes(d));
  const TileVec f = hn::Set(d, factor);
  for (std::int64_t r = 0; r < rows; ++r)
    for (std::int64_t c = 0; c < n; c += lanes)
      hn::StoreU(hn::Mul(hn::LoadU(d, y + r * stride + c), f), d, y + r * stride + c);
}

/// Whether the queries of a tile of scores are its columns (keys x queries) or its rows.
enum class Queries : int { columns, rows };

/// One number per query, for the vector at (row, column) of a tile of scores.
template <Queries kQueries>
HWY_INLINE TileVec of_query(const float* x, std::int64_t row, std::int64_t column) {
  return kQueries == Queries::columns ? hn::LoadU(TileTag(), x + column) : hn::Set(TileTag(), x[row]);
}

/// Scores in log2 units into probabilities 2^(s - lse).
template <Queries kQueries>
struct ProbabilitySink : EachVector<ProbabilitySink<kQueries>> {
  float* p;
  std::int64_t stride;
  const float* lse;
  HWY_INLINE ProbabilitySink(float* p_, std::int64_t stride_, const float* lse_) : p(p_), stride(stride_), lse(lse_) {}
  HWY_INLINE void each(TileVec s, std::int64_t i, std::int64_t j) const {
    hn::StoreU(exp2_softmax(hn::Sub(s, of_query<kQueries>(lse, i, j))), TileTag(), p + i * stride + j);
  }
};

/// Takes dP; the probabilities become the gradient by the scores, P (dP - delta).
template <Queries kQueries>
struct ScoreGradientSink : EachVector<ScoreGradientSink<kQueries>> {
  float* p;
  std::int64_t stride;
  const float* delta;
  HWY_INLINE ScoreGradientSink(float* p_, std::int64_t stride_, const float* delta_)
      : p(p_), stride(stride_), delta(delta_) {}
  HWY_INLINE void each(TileVec dp, std::int64_t i, std::int64_t j) const {
    float* p_ij = p + i * stride + j;
    hn::StoreU(hn::Mul(hn::LoadU(TileTag(), p_ij), hn::Sub(dp, of_query<kQueries>(delta, i, j))), TileTag(), p_ij);
  }
};

/// Online softmax in one pass: exponentials are taken against a reference that follows the maximum only when that is
/// kSlack above it (p then stays below 2^8, which float holds as exactly as 1). Scores that leap by more than kLeap may
/// overflow 2^x: then the block is done again in two passes.
constexpr float kSlack = 8.0f, kLeap = 100.0f;

// Columns [c0, c1) of the scores: -inf where key s0 + i is after the column's query or out of its window.
inline void mask_columns(float* s, const cpu::KeyRange& range, const cpu::RowTile& tile, std::int64_t c0,
                         std::int64_t c1) {
  const TileTag d;
  const hn::RebindToSigned<TileTag> di;
  const std::int64_t lanes = static_cast<std::int64_t>(hn::Lanes(d));
  HWY_ALIGN std::int32_t t_c[cpu::kTileRows];
  for (std::int64_t c = c0; c < c1; ++c) t_c[c] = static_cast<std::int32_t>((tile.n0 + c) / tile.G);
  const TileVec minus_inf = hn::Set(d, -std::numeric_limits<float>::infinity());
  for (std::int64_t key = range.s0; key < range.s1; ++key) {
    float* s_key = s + (key - range.s0) * kScoreStride;
    const std::int64_t last_t = std::min<std::int64_t>(key + tile.window - 1, std::numeric_limits<std::int32_t>::max());
    const auto first = hn::Set(di, static_cast<std::int32_t>(key)),
               last = hn::Set(di, static_cast<std::int32_t>(last_t));
    for (std::int64_t c = c0; c < c1; c += lanes) {
      const auto t = hn::LoadU(di, t_c + c);
      const auto hidden = hn::Or(hn::Lt(t, first), hn::Gt(t, last));
      hn::StoreU(hn::IfThenElse(hn::RebindMask(d, hidden), minus_inf, hn::LoadU(d, s_key + c)), d, s_key + c);
    }
  }
}

/// s (keys, columns): scores of keys a query does not see become -inf, whose 2^x is exactly 0. Only the columns that
/// the diagonal cuts (queries before the last key) and those that the window cuts (queries past the first key's reach)
/// are touched.
inline void mask_scores(float* s, const cpu::KeyRange& range, const cpu::RowTile& tile) {
  const std::int64_t diagonal_end = round_up(std::max<std::int64_t>(0, (range.s1 - 1) * tile.G - tile.n0), kTileN);
  const std::int64_t window_begin =
      std::max<std::int64_t>(0, (range.s0 + tile.window) * tile.G - tile.n0) / kTileN * kTileN;
  mask_columns(s, range, tile, range.c0, std::min(range.c1, diagonal_end));
  mask_columns(s, range, tile, std::max(range.c0, window_begin), range.c1);
}

}  // namespace HWY_NAMESPACE
}  // namespace nsa
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
