// Tile products against double: every remainder of a register block, strides that are no widths, garbage around the
// operands. Numbers are small integers, whose products and sums float holds exactly: a wrong element is no tolerance.
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "catch.h"
#include "core/rng.h"
#include "ops/cpu/onednn_gemm.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/test_tile.cpp"
#include <hwy/foreach_target.h>

#include "ops/cpu/tile_bf16-inl.h"

HWY_BEFORE_NAMESPACE();
namespace nsa {
namespace HWY_NAMESPACE {
namespace {

/// c (M,N) += a (M,K) b (K,N), row-major, N a multiple of 16.
void add_product(std::int64_t M, std::int64_t N, std::int64_t K, const float* a, const float* b, float* c) {
  tile_gemm<true>(M, N, K, a, K, 1, b, N, c, N);
}
/// The same with A stored (K,M).
void add_product_of_columns(std::int64_t M, std::int64_t N, std::int64_t K, const float* a, const float* b, float* c) {
  tile_gemm<true>(M, N, K, a, 1, M, b, N, c, N);
}

#if HWY_TARGET == HWY_AVX3
constexpr bool kPairs = true;

// Around what the operands are made of lies what must not be read.
std::vector<bf16> framed(std::int64_t rows, std::int64_t columns, std::int64_t stride, const float* x) {
  std::vector<bf16> y(static_cast<std::size_t>(rows * stride + 64), bf16(std::numeric_limits<float>::quiet_NaN()));
  for (std::int64_t r = 0; r < rows; ++r)
    for (std::int64_t c = 0; c < columns; ++c) y[r * stride + c] = bf16(x[r * columns + c]);
  return y;
}
std::vector<bf16> interleaved(std::int64_t K, std::int64_t N, const float* x, std::int64_t stride) {
  const std::vector<bf16> rows = framed(K, N, N + 3, x);
  std::vector<bf16> y(static_cast<std::size_t>((K + 1) / 2 * stride), bf16(std::numeric_limits<float>::quiet_NaN()));
  interleave_rows(y.data(), stride, rows.data(), N + 3, K, N);
  return y;
}

void add_pairs_product(std::int64_t M, std::int64_t N, std::int64_t K, const float* a, const float* b, float* c) {
  std::vector<bf16> a_rows = framed(M, K, K + K % 2 + 2, a);
  if (K % 2)
    for (std::int64_t i = 0; i < M; ++i) a_rows[i * (K + 3) + K] = bf16(0.0f);
  const std::vector<bf16> b_pairs = interleaved(K, N, b, pair_stride(N));
  tile_product(M, N, PairOperands{(K + 1) / 2, a_rows.data(), K + K % 2 + 2, 2, b_pairs.data(), pair_stride(N)},
               AddSink(c, N));
}
/// A stored (K,M): its rows are interleaved too.
void add_pairs_product_of_columns(std::int64_t M, std::int64_t N, std::int64_t K, const float* a, const float* b,
                                  float* c) {
  const std::vector<bf16> a_pairs = interleaved(K, M, a, pair_stride(M)),
                          b_pairs = interleaved(K, N, b, pair_stride(N));
  tile_product(M, N, PairOperands{(K + 1) / 2, a_pairs.data(), 2, pair_stride(M), b_pairs.data(), pair_stride(N)},
               AddSink(c, N));
}
/// out (32): the pairs of 16 numbers of x and 16 more, and once more times 1/4.
void round_pairs(const float* x, float* out) {
  alignas(64) bf16 pairs[32];
  store_pairs(load_tile(x), load_tile(x + 16), pairs);
  for (int i = 0; i < 32; ++i) out[i] = static_cast<float>(pairs[i]);
  scale_pairs(pairs, 32, 1, hn::Set(TileTag(), 0.25f));
  for (int i = 0; i < 32; ++i) out[32 + i] = static_cast<float>(pairs[i]);
}
#else
constexpr bool kPairs = false;
void add_pairs_product(std::int64_t, std::int64_t, std::int64_t, const float*, const float*, float*) {}
void add_pairs_product_of_columns(std::int64_t, std::int64_t, std::int64_t, const float*, const float*, float*) {}
void round_pairs(const float*, float*) {}
#endif

bool has_pairs() { return kPairs; }

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace nsa
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace nsa {
HWY_EXPORT(add_product);
HWY_EXPORT(add_product_of_columns);
HWY_EXPORT(add_pairs_product);
HWY_EXPORT(add_pairs_product_of_columns);
HWY_EXPORT(round_pairs);
HWY_EXPORT(has_pairs);

namespace {

std::vector<float> small_integers(std::int64_t n, const char* name) {
  const Rng rng(1, name);
  std::vector<float> v(static_cast<std::size_t>(n));
  for (std::size_t i = 0; i < v.size(); ++i) v[i] = static_cast<float>(std::floor(rng.uniform(i) * 17) - 8);
  return v;
}

template <class Multiply>
void check_product(std::int64_t M, std::int64_t N, std::int64_t K, bool a_by_k, const Multiply& multiply) {
  const std::vector<float> a = small_integers(M * K, "a"), b = small_integers(K * N, "b"),
                           c = small_integers(M * N, "c");
  std::vector<float> got = c;
  multiply(M, N, K, a.data(), b.data(), got.data());
  std::int64_t wrong = 0;
  for (std::int64_t i = 0; i < M; ++i)
    for (std::int64_t j = 0; j < N; ++j) {
      double sum = static_cast<double>(c[i * N + j]);
      for (std::int64_t k = 0; k < K; ++k)
        sum += static_cast<double>(a_by_k ? a[k * M + i] : a[i * K + k]) * static_cast<double>(b[k * N + j]);
      wrong += static_cast<double>(got[i * N + j]) != sum;
    }
  INFO("M " << M << " N " << N << " K " << K << (a_by_k ? ", A by columns" : ", A by rows"));
  CHECK(wrong == 0);
}

}  // namespace
}  // namespace nsa

using namespace nsa;

TEST_CASE("tile products equal those of double, for every remainder of a register block") {
  const bool pairs = HWY_DYNAMIC_DISPATCH(has_pairs)() && cpu::native_bf16();
  for (std::int64_t M : {1, 2, 3, 4, 5, 6, 7, 11, 12, 97})
    for (std::int64_t N : {16, 32, 48, 64, 80, 112, 192})
      for (std::int64_t K : {1, 2, 7, 32, 65}) {
        check_product(M, N, K, false, HWY_DYNAMIC_DISPATCH(add_product));
        check_product(M, N, K, true, HWY_DYNAMIC_DISPATCH(add_product_of_columns));
        if (!pairs) continue;
        INFO("pairs of bf16");
        check_product(M, N, K, false, HWY_DYNAMIC_DISPATCH(add_pairs_product));
        check_product(M, N, K, true, HWY_DYNAMIC_DISPATCH(add_pairs_product_of_columns));
      }
}

TEST_CASE("pairs of bf16 are rounded as bf16 is") {
  if (!HWY_DYNAMIC_DISPATCH(has_pairs)() || !cpu::native_bf16()) return;  // other CPUs have no such pairs
  const Rng rng(1, "x");
  std::vector<float> x(32), got(64);
  for (std::size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(rng.normal(i));
  x[3] = 1.00390625f, x[4] = 1.01171875f;  // ties: to 1 and to 1 + 2^-6
  x[5] = std::numeric_limits<float>::infinity(), x[6] = -x[5], x[7] = std::numeric_limits<float>::quiet_NaN();
  x[20] = x[7], x[21] = 3.4e38f, x[22] = -0.0f;
  HWY_DYNAMIC_DISPATCH(round_pairs)(x.data(), got.data());
  for (std::size_t i = 0; i < 32; ++i) {
    const float want = static_cast<float>(bf16(x[i % 2 * 16 + i / 2]));
    INFO("element " << i << ", " << x[i % 2 * 16 + i / 2]);
    CHECK((got[i] == want || (std::isnan(got[i]) && std::isnan(want))));
    CHECK((got[32 + i] == want / 4 || (std::isnan(got[32 + i]) && std::isnan(want))));
  }
}
#endif
