// Small dense building blocks shared by the attention and NSA kernels, compiled once per SIMD target (Highway's foreach_target: no include guard per target).
//
//   tile_gemm: C (M,N) = [C +] A (M,K) B (K,N) on operands that sit in cache. A(i,k) = a[i*a_row + k*a_col], so A may be a transposed view; B and C are
//              row-major with N a multiple of kTileN. Register block MR x NV vectors: FMA-bound when K >= 32.
//   exp2_poly: 2^x, relative error < 2e-7 on [-126, 126], 0 below -126 (masked logits underflow to exactly 0).
#include <hwy/highway.h>

#include <cstdint>

#if defined(NSA_OPS_CPU_TILE_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef NSA_OPS_CPU_TILE_INL_H_
#undef NSA_OPS_CPU_TILE_INL_H_
#else
#define NSA_OPS_CPU_TILE_INL_H_
#endif

HWY_BEFORE_NAMESPACE();
namespace nsa {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// 16 floats: one AVX-512 vector, two AVX2 vectors. Widths of tiles are padded to it.
constexpr std::int64_t kTileN = 16;
using TileTag = hn::CappedTag<float, kTileN>;
using TileVec = hn::Vec<TileTag>;

constexpr std::int64_t round_up(std::int64_t n, std::int64_t m) { return (n + m - 1) / m * m; }

// 32 vector registers (AVX-512, NEON) hold 6x4 accumulators, 16 registers hold 6x2.
#if HWY_TARGET == HWY_AVX3 || HWY_TARGET == HWY_NEON
constexpr int kTileNV = 4;
#else
constexpr int kTileNV = 2;
#endif
constexpr int kTileMR = 6;

template <int MR, int NV, bool kAdd>
HWY_INLINE void tile_block(std::int64_t K, const float* HWY_RESTRICT a, std::int64_t a_row, std::int64_t a_col, const float* HWY_RESTRICT b, std::int64_t ldb,
                           float* HWY_RESTRICT c, std::int64_t ldc) {
  const TileTag d;
  const std::int64_t lanes = static_cast<std::int64_t>(hn::Lanes(d));
  TileVec acc[MR][NV];
  HWY_UNROLL(8) for (int i = 0; i < MR; ++i) HWY_UNROLL(8) for (int j = 0; j < NV; ++j) acc[i][j] = kAdd ? hn::LoadU(d, c + i * ldc + j * lanes) : hn::Zero(d);
  HWY_UNROLL(2) for (std::int64_t k = 0; k < K; ++k) {
    TileVec bv[NV];
    HWY_UNROLL(8) for (int j = 0; j < NV; ++j) bv[j] = hn::LoadU(d, b + k * ldb + j * lanes);
    HWY_UNROLL(8) for (int i = 0; i < MR; ++i) {
      const TileVec av = hn::Set(d, a[i * a_row + k * a_col]);
      HWY_UNROLL(8) for (int j = 0; j < NV; ++j) acc[i][j] = hn::MulAdd(av, bv[j], acc[i][j]);
    }
  }
  HWY_UNROLL(8) for (int i = 0; i < MR; ++i) HWY_UNROLL(8) for (int j = 0; j < NV; ++j) hn::StoreU(acc[i][j], d, c + i * ldc + j * lanes);
}

template <int NV, bool kAdd>
HWY_INLINE void tile_columns(std::int64_t M, std::int64_t K, const float* a, std::int64_t a_row, std::int64_t a_col, const float* b, std::int64_t ldb, float* c,
                             std::int64_t ldc) {
  std::int64_t i = 0;
  for (; i + kTileMR <= M; i += kTileMR) tile_block<kTileMR, NV, kAdd>(K, a + i * a_row, a_row, a_col, b, ldb, c + i * ldc, ldc);
  const float* ai = a + i * a_row;
  float* ci = c + i * ldc;
  switch (M - i) {
    case 5: tile_block<5, NV, kAdd>(K, ai, a_row, a_col, b, ldb, ci, ldc); break;
    case 4: tile_block<4, NV, kAdd>(K, ai, a_row, a_col, b, ldb, ci, ldc); break;
    case 3: tile_block<3, NV, kAdd>(K, ai, a_row, a_col, b, ldb, ci, ldc); break;
    case 2: tile_block<2, NV, kAdd>(K, ai, a_row, a_col, b, ldb, ci, ldc); break;
    case 1: tile_block<1, NV, kAdd>(K, ai, a_row, a_col, b, ldb, ci, ldc); break;
    default: break;
  }
}

/// C (M,N) = [C +] A (M,K) B (K,N); N a multiple of kTileN.
template <bool kAdd>
HWY_INLINE void tile_gemm(std::int64_t M, std::int64_t N, std::int64_t K, const float* a, std::int64_t a_row, std::int64_t a_col, const float* b,
                          std::int64_t ldb, float* c, std::int64_t ldc) {
  const std::int64_t lanes = static_cast<std::int64_t>(hn::Lanes(TileTag()));
  std::int64_t j = 0;
  for (; j + kTileNV * lanes <= N; j += kTileNV * lanes) tile_columns<kTileNV, kAdd>(M, K, a, a_row, a_col, b + j, ldb, c + j, ldc);
  if constexpr (kTileNV > 2) {
    for (; j + 2 * lanes <= N; j += 2 * lanes) tile_columns<2, kAdd>(M, K, a, a_row, a_col, b + j, ldb, c + j, ldc);
  }
  for (; j < N; j += lanes) tile_columns<1, kAdd>(M, K, a, a_row, a_col, b + j, ldb, c + j, ldc);
}

/// 2^x for x <= 127, what a softmax needs: no clamp above, exactly 0 below -126 (also -inf), NaN stays NaN. Adding 1.5 * 2^23 rounds x to an integer in the
/// low bits of the sum (127 is the exponent bias), degree-5 minimax polynomial for the fraction.
HWY_INLINE TileVec exp2_softmax(TileVec x) {
  const TileTag d;
  const hn::RebindToSigned<TileTag> di;
  const TileVec magic = hn::Set(d, 12582912.0f + 127.0f);
  const TileVec shifted = hn::Add(x, magic);
  const TileVec r = hn::Sub(x, hn::Sub(shifted, magic));
  TileVec p = hn::Set(d, 1.326458752e-03f);
  p = hn::MulAdd(p, r, hn::Set(d, 9.671619229e-03f));
  p = hn::MulAdd(p, r, hn::Set(d, 5.550735042e-02f));
  p = hn::MulAdd(p, r, hn::Set(d, 2.402224046e-01f));
  p = hn::MulAdd(p, r, hn::Set(d, 6.931469764e-01f));
  p = hn::MulAdd(p, r, hn::Set(d, 1.0f));
  const TileVec power = hn::BitCast(d, hn::ShiftLeft<23>(hn::BitCast(di, shifted)));
  return hn::IfThenZeroElse(hn::Lt(x, hn::Set(d, -126.0f)), hn::Mul(p, power));
}

/// 2^x for any x; above 127 it stays at 2^127.
HWY_INLINE TileVec exp2_poly(TileVec x) { return exp2_softmax(hn::Min(x, hn::Set(TileTag(), 127.0f))); }

/// NaN in gives NaN out (a diverged run must be seen, not hidden): the Min in exp2_poly may turn it into a number.
HWY_INLINE TileVec exp2_keep_nan(TileVec x) { return hn::IfThenElse(hn::IsNaN(x), x, exp2_poly(x)); }

}  // namespace HWY_NAMESPACE
}  // namespace nsa
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
