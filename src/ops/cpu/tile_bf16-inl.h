// Products of bf16 tiles by AVX512_BF16: one instruction adds two neighbouring products to a float sum. Compiled for
// Highway's AVX3 target only, and only run where native_bf16() says so (onednn_gemm.h).
//
// Operands are pairs of neighbouring k. A (M,K): rows that lie along k are such pairs as they are; B (K,N): two rows of
// k are interleaved, (b[k][0], b[k+1][0]), (b[k][1], b[k+1][1]), ... Where K is odd the last pair holds a zero, on both
// sides: 0 times what lies there may be NaN. Sums are floats; products and sums of denormals count as 0.
//
// The instructions are written as assembler: an intrinsic can only be inlined into functions compiled for AVX512_BF16,
// and Highway 1.0 has no target that holds it.
#include <cstring>

#include "ops/cpu/tile-inl.h"

#if defined(NSA_OPS_CPU_TILE_BF16_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef NSA_OPS_CPU_TILE_BF16_INL_H_
#undef NSA_OPS_CPU_TILE_BF16_INL_H_
#else
#define NSA_OPS_CPU_TILE_BF16_INL_H_
#endif

// Row length of a bf16 tile, and of one of interleaved rows of n pairs: odd numbers of cache lines, as tile_stride().
#if HWY_TARGET == HWY_AVX3
HWY_BEFORE_NAMESPACE();
namespace nsa {
namespace HWY_NAMESPACE {

constexpr std::int64_t bf16_stride(std::int64_t n) { return round_up(n, 2 * kTileN) | 2 * kTileN; }
constexpr std::int64_t pair_stride(std::int64_t n) { return 2 * (round_up(n, kTileN) | kTileN); }

/// sum + a0 b0 + a1 b1 in every lane.
HWY_INLINE TileVec add_pairs(TileVec sum, __m512i a, __m512i b) {
  asm("vdpbf16ps %2, %1, %0" : "+v"(sum.raw) : "v"(a), "v"(b));
  return sum;
}
/// Rounded to nearest, ties to even, a NaN stays one: low in the lower half.
HWY_INLINE __m512i to_bf16(TileVec low, TileVec high) {
  __m512i both;
  asm("vcvtne2ps2bf16 %1, %2, %0" : "=v"(both) : "v"(low.raw), "v"(high.raw));
  return both;
}

/// The pair at p in every lane.
HWY_INLINE __m512i broadcast_pair(const bf16* p) {
  std::int32_t pair;
  std::memcpy(&pair, p, sizeof(pair));
  return _mm512_set1_epi32(pair);
}
HWY_INLINE __m512i load_pairs(const bf16* p) { return _mm512_loadu_si512(p); }

/// Two rows of 16 floats as 16 pairs.
HWY_INLINE void store_pairs(TileVec first, TileVec second, bf16* p) {
  const __m512i index = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6, 21,
                                         5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
  _mm512_storeu_si512(p, _mm512_permutexvar_epi16(index, to_bf16(first, second)));
}

/// A (M,K) B (K,N) in bf16: the pair of A at (i, pair k) is a[i * a_row + k * a_col], that of B b[k * ldb + 2 j].
struct PairOperands {
  std::int64_t pairs;  ///< K / 2, rounded up
  const bf16* a;
  std::int64_t a_row, a_col;
  const bf16* b;
  std::int64_t ldb;

  template <int MR, int NV>
  HWY_INLINE void sums(TileVec (&acc)[MR][NV], std::int64_t i0, std::int64_t j0) const {
    const bf16 *HWY_RESTRICT a_i = a + i0 * a_row, *HWY_RESTRICT b_j = b + 2 * j0;
    for (std::int64_t k = 0; k < pairs; ++k) {  // not unrolled: g++ 12 would keep the sums in memory
      __m512i bv[NV];
      HWY_UNROLL(8) for (int j = 0; j < NV; ++j) bv[j] = load_pairs(b_j + k * ldb + j * 2 * kTileN);
      HWY_UNROLL(8) for (int i = 0; i < MR; ++i) {
        const __m512i av = broadcast_pair(a_i + i * a_row + k * a_col);
        HWY_UNROLL(8) for (int j = 0; j < NV; ++j) acc[i][j] = add_pairs(acc[i][j], av, bv[j]);
      }
    }
  }
};

/// y (rows / 2 rounded up, D pairs) = pairs of neighbouring rows of x (rows, D), zeros beyond both, up to a whole
/// vector of pairs.
inline void interleave_rows(bf16* y, std::int64_t y_stride, const bf16* x, std::int64_t x_stride, std::int64_t rows,
                            std::int64_t D) {
  alignas(64) static constexpr std::uint16_t kLower[32] = {0,  32, 1,  33, 2,  34, 3,  35, 4,  36, 5,
                                                           37, 6,  38, 7,  39, 8,  40, 9,  41, 10, 42,
                                                           11, 43, 12, 44, 13, 45, 14, 46, 15, 47};
  const __m512i lower = _mm512_load_si512(kLower), upper = _mm512_add_epi16(lower, _mm512_set1_epi16(16));
  for (std::int64_t r = 0; r < rows; r += 2)
    for (std::int64_t c = 0; c < D; c += 32) {
      const __mmask32 inside = D - c >= 32 ? ~__mmask32{0} : (__mmask32{1} << (D - c)) - 1;
      const bf16* from = x + r * x_stride + c;
      const __m512i first = _mm512_maskz_loadu_epi16(inside, from),
                    second = _mm512_maskz_loadu_epi16(r + 1 < rows ? inside : 0, from + (r + 1 < rows) * x_stride);
      bf16* to = y + r / 2 * y_stride + 2 * c;
      _mm512_storeu_si512(to, _mm512_permutex2var_epi16(first, lower, second));
      if (D - c > 16) _mm512_storeu_si512(to + 32, _mm512_permutex2var_epi16(first, upper, second));
    }
}

/// Multiplies n vectors of pairs, `stride` apart, by factors that are powers of two.
HWY_INLINE void scale_pairs(bf16* p, std::int64_t stride, std::int64_t n, TileVec factor) {
  const TileTag d;
  const hn::RebindToUnsigned<TileTag> du;
  for (std::int64_t i = 0; i < n; ++i) {
    const auto pairs = hn::BitCast(du, hn::LoadU(d, reinterpret_cast<const float*>(p + i * stride)));
    const auto first = hn::ShiftLeft<16>(pairs), second = hn::And(pairs, hn::Set(du, 0xffff0000u));
    store_pairs(hn::Mul(hn::BitCast(d, first), factor), hn::Mul(hn::BitCast(d, second), factor), p + i * stride);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace nsa
HWY_AFTER_NAMESPACE();
#endif

#endif  // per-target include guard
