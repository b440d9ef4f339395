// Small dense building blocks shared by the attention and NSA kernels, compiled once per SIMD target (Highway's
// foreach_target: no include guard per target).
//
// tile_gemm: C (M,N) = [C +] A (M,K) B (K,N) on operands that sit in cache. A(i,k) = a[i*a_row + k*a_col], so A may be
// a transposed view; B and C are row-major with N a multiple of kTileN. Register block MR x NV vectors: FMA-bound when
// K >= 32.
// tile_product: the same, and what becomes of each register block is said by a sink: what follows a product costs no
// pass over memory of its own.
// exp2_poly: 2^x, relative error < 2e-7 on [-126, 126], 0 below -126 (masked logits underflow to exactly 0).
#include <hwy/highway.h>

#include <cstdint>
#include <type_traits>

#include "core/dtype.h"

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

/// Lanes of d from memory, f32 or bf16 (the upper half of a float).
template <class D>
HWY_INLINE hn::Vec<D> load_floats(D d, const float* p) {
  return hn::LoadU(d, p);
}
template <class D>
HWY_INLINE hn::Vec<D> load_floats(D d, const bf16* p) {
  const hn::Rebind<std::uint16_t, D> half;
  const auto bits = hn::PromoteTo(hn::RebindToUnsigned<D>(), hn::LoadU(half, &p->bits));
  return hn::BitCast(d, hn::ShiftLeft<16>(bits));
}

template <class T>
HWY_INLINE TileVec load_tile(const T* p) {
  return load_floats(TileTag(), p);
}
HWY_INLINE void store_tile(TileVec v, float* p) { hn::StoreU(v, TileTag(), p); }

/// Rounded as bf16(float) does: to nearest, ties to even, a NaN stays one.
HWY_INLINE void store_tile(TileVec v, bf16* p) {
  const hn::Rebind<std::uint16_t, TileTag> half;
  const hn::RebindToUnsigned<TileTag> du;
  const hn::RebindToSigned<TileTag> di;
  const auto u = hn::BitCast(du, v), high = hn::ShiftRight<16>(u);
  const auto up = hn::Add(hn::Set(du, 0x7fffu), hn::And(high, hn::Set(du, 1u)));
  const auto nan = hn::Or(high, hn::Set(du, 0x40u));
  const auto bits = hn::IfThenElse(hn::RebindMask(du, hn::IsNaN(v)), nan, hn::ShiftRight<16>(hn::Add(u, up)));
  hn::StoreU(hn::DemoteTo(half, hn::BitCast(di, bits)), half, &p->bits);
}

constexpr std::int64_t round_up(std::int64_t n, std::int64_t m) { return (n + m - 1) / m * m; }

// 32 vector registers (AVX-512, NEON) hold 6x4 accumulators, 16 registers hold 6x2.
#if HWY_TARGET == HWY_AVX3 || HWY_TARGET == HWY_NEON
constexpr int kTileNV = 4;
#else
constexpr int kTileNV = 2;
#endif
constexpr int kTileMR = 6;

/// What becomes of a register block of the product, rows i.., columns j..: begin() comes before its sums are made,
/// finish() takes them. A sink that treats every vector alike says so in each(x, i, j).
template <class Sink>
struct EachVector {
  template <int MR, int NV>
  HWY_INLINE void begin(std::int64_t, std::int64_t) const {}
  template <int MR, int NV>
  HWY_INLINE void finish(const TileVec (&acc)[MR][NV], std::int64_t i, std::int64_t j) const {
    HWY_UNROLL(8) for (int v = 0; v < NV; ++v) {
      const std::int64_t c = j + v * static_cast<std::int64_t>(hn::Lanes(TileTag()));
      HWY_UNROLL(8) for (int r = 0; r < MR; ++r) static_cast<const Sink&>(*this).each(acc[r][v], i + r, c);
    }
  }
};
struct StoreSink : EachVector<StoreSink> {
  float* c;
  std::int64_t ldc;
  HWY_INLINE StoreSink(float* c_, std::int64_t ldc_) : c(c_), ldc(ldc_) {}
  HWY_INLINE void each(TileVec x, std::int64_t i, std::int64_t j) const { hn::StoreU(x, TileTag(), c + i * ldc + j); }
};
/// Adds to C, which may lie far away: it is asked for before the sums are made and read after them.
struct AddSink : EachVector<AddSink> {
  float* c;
  std::int64_t ldc;
  HWY_INLINE AddSink(float* c_, std::int64_t ldc_) : c(c_), ldc(ldc_) {}
  template <int MR, int NV>
  HWY_INLINE void begin(std::int64_t i, std::int64_t j) const {
    const std::int64_t width = NV * static_cast<std::int64_t>(hn::Lanes(TileTag()));
    HWY_UNROLL(8)
    for (int r = 0; r < MR; ++r)
      for (std::int64_t line = 0; line < width; line += kTileN) __builtin_prefetch(c + (i + r) * ldc + j + line, 1);
  }
  HWY_INLINE void each(TileVec x, std::int64_t i, std::int64_t j) const {
    float* c_ij = c + i * ldc + j;
    hn::StoreU(hn::Add(x, hn::LoadU(TileTag(), c_ij)), TileTag(), c_ij);
  }
};

/// The operands of an f32 product, as tile_gemm has them; sums(acc, i, j) makes those of a register block.
struct FloatOperands {
  std::int64_t K;
  const float* a;
  std::int64_t a_row, a_col;
  const float* b;
  std::int64_t ldb;

  template <int MR, int NV>
  HWY_INLINE void sums(TileVec (&acc)[MR][NV], std::int64_t i0, std::int64_t j0) const {
    const TileTag d;
    const std::int64_t lanes = static_cast<std::int64_t>(hn::Lanes(d));
    const float *HWY_RESTRICT a_i = a + i0 * a_row, *HWY_RESTRICT b_j = b + j0;
    HWY_UNROLL(2) for (std::int64_t k = 0; k < K; ++k) {
      TileVec bv[NV];
      HWY_UNROLL(8) for (int j = 0; j < NV; ++j) bv[j] = hn::LoadU(d, b_j + k * ldb + j * lanes);
      HWY_UNROLL(8) for (int i = 0; i < MR; ++i) {
        const TileVec av = hn::Set(d, a_i[i * a_row + k * a_col]);
        HWY_UNROLL(8) for (int j = 0; j < NV; ++j) acc[i][j] = hn::MulAdd(av, bv[j], acc[i][j]);
      }
    }
  }
};

template <int MR, int NV, class Operands, class Sink>
HWY_INLINE void tile_block(const Operands& x, const Sink& sink, std::int64_t i0, std::int64_t j0) {
  const TileTag d;
  TileVec acc[MR][NV];
  HWY_UNROLL(8) for (int i = 0; i < MR; ++i) HWY_UNROLL(8) for (int j = 0; j < NV; ++j) acc[i][j] = hn::Zero(d);
  sink.template begin<MR, NV>(i0, j0);
  x.template sums<MR, NV>(acc, i0, j0);
  sink.finish(acc, i0, j0);
}

/// What is done with every register block of a tile: one product.
template <class Operands, class Sink>
struct OneProduct {
  Operands x;
  Sink sink;
  template <int MR, int NV>
  HWY_INLINE void block(std::int64_t i, std::int64_t j) const {
    tile_block<MR, NV>(x, sink, i, j);
  }
};

template <int NV, class Blocks>
HWY_INLINE void tile_columns(std::int64_t M, const Blocks& blocks, std::int64_t j) {
  std::int64_t i = 0;
  for (; i + kTileMR <= M; i += kTileMR) blocks.template block<kTileMR, NV>(i, j);
  switch (M - i) {
    case 5: blocks.template block<5, NV>(i, j); break;
    case 4: blocks.template block<4, NV>(i, j); break;
    case 3: blocks.template block<3, NV>(i, j); break;
    case 2: blocks.template block<2, NV>(i, j); break;
    case 1: blocks.template block<1, NV>(i, j); break;
    default: break;
  }
}

/// Walks the register blocks of a tile (M,N), columns outside; N a multiple of kTileN.
template <class Blocks>
HWY_INLINE void tile_walk(std::int64_t M, std::int64_t N, const Blocks& blocks) {
  const std::int64_t lanes = static_cast<std::int64_t>(hn::Lanes(TileTag()));
  std::int64_t j = 0;
  for (; j + kTileNV * lanes <= N; j += kTileNV * lanes) tile_columns<kTileNV>(M, blocks, j);
  if constexpr (kTileNV > 2) {
    for (; j + 2 * lanes <= N; j += 2 * lanes) tile_columns<2>(M, blocks, j);
  }
  for (; j < N; j += lanes) tile_columns<1>(M, blocks, j);
}

/// A (M,K) B (K,N), block by block into the sink; N a multiple of kTileN.
template <class Operands, class Sink>
HWY_INLINE void tile_product(std::int64_t M, std::int64_t N, const Operands& x, const Sink& sink) {
  tile_walk(M, N, OneProduct<Operands, Sink>{x, sink});
}
template <class Sink>
HWY_INLINE void tile_product(std::int64_t M, std::int64_t N, std::int64_t K, const float* a, std::int64_t a_row,
                             std::int64_t a_col, const float* b, std::int64_t ldb, const Sink& sink) {
  tile_product(M, N, FloatOperands{K, a, a_row, a_col, b, ldb}, sink);
}

/// C (M,N) = [C +] A (M,K) B (K,N)
template <bool kAdd>
HWY_INLINE void tile_gemm(std::int64_t M, std::int64_t N, std::int64_t K, const float* a, std::int64_t a_row,
                          std::int64_t a_col, const float* b, std::int64_t ldb, float* c, std::int64_t ldc) {
  using Sink = std::conditional_t<kAdd, AddSink, StoreSink>;
  tile_product(M, N, K, a, a_row, a_col, b, ldb, Sink(c, ldc));
}

/// 2^x for x <= 127, what a softmax needs: no clamp above, exactly 0 below -126 (also -inf), NaN stays NaN. Adding 1.5
/// * 2^23 rounds x to an integer in the low bits of the sum (127 is the exponent bias), degree-5 minimax polynomial for
/// the fraction.
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
