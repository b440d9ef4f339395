// RoPE, half-rotate pairs (i, i + D/2), in place. Bound by memory; the cosines of a position are read once for all its
// heads.
#include <cmath>

#include "core/parallel.h"
#include "ops/cpu/grain.h"
#include "ops/cpu/kernel.h"
#include "ops/ops.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/cpu/rope.cpp"
#include <hwy/foreach_target.h>

#include "ops/cpu/row-inl.h"

HWY_BEFORE_NAMESPACE();
namespace nsa {
namespace HWY_NAMESPACE {
namespace {

// the H heads of one position; table_t (D/2, 2) holds cos, sin; sign -1 is the inverse rotation
template <class T>
HWY_INLINE void rope_position(T* x_bt, const float* table_t, std::int64_t H, std::int64_t D, float sign) {
  const std::int64_t half = D / 2, lanes = row_lanes();
  std::int64_t i = 0;
  for (; i + lanes <= half; i += lanes) {
    TileVec cosine, sine;
    hn::LoadInterleaved2(TileTag(), table_t + 2 * i, cosine, sine);
    sine = hn::Mul(sine, row_set(sign));
    for (std::int64_t h = 0; h < H; ++h) {
      T* first = x_bt + h * D + i;
      T* second = first + half;
      const TileVec a = load_tile(first), b = load_tile(second);
      store_tile(hn::NegMulAdd(b, sine, hn::Mul(a, cosine)), first);
      store_tile(hn::MulAdd(a, sine, hn::Mul(b, cosine)), second);
    }
  }
  for (; i < half; ++i) {
    const float cosine = table_t[2 * i], sine = sign * table_t[2 * i + 1];
    for (std::int64_t h = 0; h < H; ++h) {
      T* first = x_bt + h * D + i;
      const float a = static_cast<float>(first[0]), b = static_cast<float>(first[half]);
      first[0] = static_cast<T>(a * cosine - b * sine);
      first[half] = static_cast<T>(b * cosine + a * sine);
    }
  }
}

void rope_position_f32(float* x_bt, const float* table_t, std::int64_t H, std::int64_t D, float sign) {
  rope_position(x_bt, table_t, H, D, sign);
}
void rope_position_bf16(bf16* x_bt, const float* table_t, std::int64_t H, std::int64_t D, float sign) {
  rope_position(x_bt, table_t, H, D, sign);
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace nsa
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace nsa {
HWY_EXPORT(rope_position_f32);
HWY_EXPORT(rope_position_bf16);

namespace cpu {
namespace {

void rotate(Device& dev, InOut x, In table, std::int64_t stride, float sign) {
  if (dev.planning()) return;
  const std::int64_t B = x.dim(0), T = x.dim(1), H = x.dim(2), D = x.dim(3);
  const float* tp = table.raw<float>();
  dispatch_type(x.dtype, [&]<class Type>() {
    Type* xp = x.raw<Type>();
    parallel_ranges(dev.threads, B * T, rows_per_piece(H * D), [&](std::int64_t begin, std::int64_t end, int) {
      for (std::int64_t bt = begin; bt < end; ++bt)
        NSA_KERNEL(Type, rope_position)(xp + bt * H * D, tp + bt % T * stride * D, H, D, sign);
    });
  });
}

}  // namespace

void rope_table(Device& dev, Out table, double theta) {
  if (dev.planning()) return;
  const std::int64_t T = table.dim(0), half = table.dim(1);
  float* tp = table.raw<float>();
  parallel_ranges(dev.threads, T, rows_per_piece(64 * half), [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t i = 0; i < half; ++i) {
      const double frequency = std::pow(theta, -static_cast<double>(i) / static_cast<double>(half));
      for (std::int64_t t = begin; t < end; ++t) {
        const double angle = static_cast<double>(t) * frequency;
        tp[(t * half + i) * 2] = static_cast<float>(std::cos(angle));
        tp[(t * half + i) * 2 + 1] = static_cast<float>(std::sin(angle));
      }
    }
  });
}

void rope_forward(Device& dev, InOut x, In table, std::int64_t stride) { rotate(dev, x, table, stride, 1.0f); }
void rope_backward(Device& dev, InOut dx, In table, std::int64_t stride) { rotate(dev, dx, table, stride, -1.0f); }

}  // namespace cpu
}  // namespace nsa
#endif
