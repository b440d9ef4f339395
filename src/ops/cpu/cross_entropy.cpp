// Cross-entropy over rows of V logits. A row is cut into at most kBlocks blocks that sit in the first-level cache: each
// gets its own maximum and sum of exponentials, and the blocks are joined at the end. So a logit is read from memory
// once, and its exponential is taken once even when the gradient is wanted: the block leaves exp(x - block maximum) in
// place, and a second pass multiplies by scale * exp(block maximum - row maximum) / row sum. bf16 logits would be
// rounded twice that way: their second pass takes the exponential again. A hit needs no exponential: a row is read
// until a logit beats the target's.
#include <algorithm>
#include <cfloat>
#include <cmath>
#include <type_traits>

#include "core/parallel.h"
#include "ops/cpu/grain.h"
#include "ops/cpu/kernel.h"
#include "ops/ops.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/cpu/cross_entropy.cpp"
#include <hwy/foreach_target.h>

#include "ops/cpu/row-inl.h"

HWY_BEFORE_NAMESPACE();
namespace nsa {
namespace HWY_NAMESPACE {
namespace {

constexpr std::int64_t kBlocks = 64, kBlock = 1024;  // blocks of at least kBlock logits

// A block of logits all -inf must give sum 0, not NaN: the maximum is clamped to a finite number. NaN among the logits
// comes out in the sum.
template <class T>
HWY_INLINE float max_block(const T* x, std::int64_t n) {
  const TileTag d;
  const std::int64_t lanes = row_lanes();
  TileVec a = row_set(-FLT_MAX), b = a;
  std::int64_t i = 0;
  for (; i + 2 * lanes <= n; i += 2 * lanes) {
    a = hn::Max(a, load_tile(x + i));
    b = hn::Max(b, load_tile(x + i + lanes));
  }
  float most = hn::GetLane(hn::MaxOfLanes(d, hn::Max(a, b)));
  for (; i < n; ++i) most = std::max(most, static_cast<float>(x[i]));
  return most;
}

// sum of exp(x - most); with kWrite the exponentials replace the logits
template <bool kWrite, class T>
HWY_INLINE float exp_block(T* x, std::int64_t n, float most) {
  const TileVec m = row_set(most), log2e = row_set(1.4426950408889634f);
  const std::int64_t whole = n / row_lanes() * row_lanes();
  const auto exponential = [&](auto at, std::int64_t i) HWY_ATTR {
    const TileVec p = exp2_keep_nan(hn::Mul(hn::Sub(at.load(x + i), m), log2e));
    if constexpr (kWrite) at.store(p, x + i);
    return p;
  };
  float sum = sum_row(whole, exponential);
  if (whole < n) {
    HWY_ALIGN float rest[kTileN];  // lanes beyond the end are exp(0 - most), not 0: only the real ones count
    hn::Store(exponential(Part{n - whole}, whole), TileTag(), rest);
    for (std::int64_t i = 0; i < n - whole; ++i) sum += rest[i];
  }
  return sum;
}

void scale_block(float* x, std::int64_t n, float factor) {
  const TileVec f = row_set(factor);
  for_row(n, [&](auto at, std::int64_t i) HWY_ATTR { at.store(hn::Mul(at.load(x + i), f), x + i); });
}

void gradient_block(bf16* x, std::int64_t n, float most, float factor) {
  const TileVec m = row_set(most), log2e = row_set(1.4426950408889634f), f = row_set(factor);
  for_row(n, [&](auto at, std::int64_t i)
                 HWY_ATTR { at.store(hn::Mul(exp2_keep_nan(hn::Mul(hn::Sub(at.load(x + i), m), log2e)), f), x + i); });
}

// loss of one row; with kGradient x becomes scale * (softmax - one-hot)
template <bool kGradient, class T>
HWY_INLINE float cross_entropy(T* x, std::int64_t V, std::int64_t target, float scale) {
  constexpr bool kInPlace = kGradient && std::is_same_v<T, float>;
  const std::int64_t block = std::max(kBlock, (V + kBlocks - 1) / kBlocks);
  const std::int64_t blocks = (V + block - 1) / block;
  const double x_target = static_cast<float>(x[target]);
  float most[kBlocks], sums[kBlocks];
  float top = -FLT_MAX;
  for (std::int64_t k = 0; k < blocks; ++k) {
    const std::int64_t n = std::min(block, V - k * block);
    most[k] = max_block(x + k * block, n);
    sums[k] = exp_block<kInPlace>(x + k * block, n, most[k]);
    top = std::max(top, most[k]);
  }
  double sum = 0;
  for (std::int64_t k = 0; k < blocks; ++k) sum += std::exp(static_cast<double>(most[k]) - top) * sums[k];
  if constexpr (kGradient) {
    for (std::int64_t k = 0; k < blocks; ++k) {
      const std::int64_t n = std::min(block, V - k * block);
      const float factor = static_cast<float>(scale * std::exp(static_cast<double>(most[k]) - top) / sum);
      if constexpr (kInPlace) {
        scale_block(x + k * block, n, factor);
      } else {
        gradient_block(x + k * block, n, most[k], factor);
      }
    }
    if constexpr (kInPlace) {
      x[target] -= scale;
    } else {  // what is left of a probability near 1 is smaller than its rounding
      x[target] = static_cast<T>(static_cast<float>(scale * (std::exp(x_target - top) / sum - 1)));
    }
  }
  return static_cast<float>(std::log(sum) + top - x_target);
}

// Are all x[i] below y, or, with kEqual, not above it? A NaN is neither.
template <bool kEqual, class T>
HWY_INLINE bool all_below(const T* x, std::int64_t n, float y) {
  const TileVec limit = row_set(y);
  const std::int64_t lanes = row_lanes();
  std::int64_t i = 0;
  for (; i + lanes <= n; i += lanes) {
    const TileVec v = load_tile(x + i);
    if (!hn::AllTrue(TileTag(), kEqual ? hn::Le(v, limit) : hn::Lt(v, limit))) return false;
  }
  for (; i < n; ++i) {
    const float v = static_cast<float>(x[i]);
    if (!(kEqual ? v <= y : v < y)) return false;
  }
  return true;
}

template <class T>
HWY_INLINE bool is_argmax(const T* x, std::int64_t V, std::int64_t target) {
  const float y = static_cast<float>(x[target]);
  return all_below<false>(x, target, y) && all_below<true>(x + target, V - target, y);
}

bool argmax_hit_row_f32(const float* x, std::int64_t V, std::int64_t target) { return is_argmax(x, V, target); }
bool argmax_hit_row_bf16(const bf16* x, std::int64_t V, std::int64_t target) { return is_argmax(x, V, target); }

// <false> does not write
float cross_entropy_row_f32(const float* x, std::int64_t V, std::int64_t target) {
  return cross_entropy<false>(const_cast<float*>(x), V, target, 0.0f);
}
float cross_entropy_row_bf16(const bf16* x, std::int64_t V, std::int64_t target) {
  return cross_entropy<false>(const_cast<bf16*>(x), V, target, 0.0f);
}
float cross_entropy_gradient_row_f32(float* x, std::int64_t V, std::int64_t target, float scale) {
  return cross_entropy<true>(x, V, target, scale);
}
float cross_entropy_gradient_row_bf16(bf16* x, std::int64_t V, std::int64_t target, float scale) {
  return cross_entropy<true>(x, V, target, scale);
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace nsa
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace nsa {
HWY_EXPORT(argmax_hit_row_f32);
HWY_EXPORT(argmax_hit_row_bf16);
HWY_EXPORT(cross_entropy_row_f32);
HWY_EXPORT(cross_entropy_row_bf16);
HWY_EXPORT(cross_entropy_gradient_row_f32);
HWY_EXPORT(cross_entropy_gradient_row_bf16);

namespace cpu {

void cross_entropy_forward(Device& dev, Out losses, In logits, In targets) {
  if (dev.planning()) return;
  const std::int64_t N = logits.dim(0), V = logits.dim(1);
  float* loss = losses.raw<float>();
  const std::int32_t* target = targets.raw<std::int32_t>();
  dispatch_type(logits.dtype, [&]<class T>() {
    const T* x = logits.raw<T>();
    parallel_ranges(dev.threads, N, rows_per_piece(V), [&](std::int64_t begin, std::int64_t end, int) {
      for (std::int64_t n = begin; n < end; ++n)
        loss[n] = target[n] < 0 ? 0.0f : NSA_KERNEL(T, cross_entropy_row)(x + n * V, V, target[n]);
    });
  });
}

void cross_entropy_forward_backward(Device& dev, Out losses, InOut logits, In targets, float scale) {
  if (dev.planning()) return;
  const std::int64_t N = logits.dim(0), V = logits.dim(1);
  float* loss = losses.raw<float>();
  const std::int32_t* target = targets.raw<std::int32_t>();
  dispatch_type(logits.dtype, [&]<class T>() {
    T* x = logits.raw<T>();
    parallel_ranges(dev.threads, N, rows_per_piece(V), [&](std::int64_t begin, std::int64_t end, int) {
      for (std::int64_t n = begin; n < end; ++n) {
        if (target[n] < 0) {
          loss[n] = 0;
          std::fill_n(x + n * V, V, T(0.0f));
        } else {
          loss[n] = NSA_KERNEL(T, cross_entropy_gradient_row)(x + n * V, V, target[n], scale);
        }
      }
    });
  });
}

void argmax_hits(Device& dev, Out hits, In logits, In targets) {
  if (dev.planning()) return;
  const std::int64_t N = logits.dim(0), V = logits.dim(1);
  float* hit = hits.raw<float>();
  const std::int32_t* target = targets.raw<std::int32_t>();
  dispatch_type(logits.dtype, [&]<class T>() {
    const T* x = logits.raw<T>();
    parallel_ranges(dev.threads, N, rows_per_piece(V), [&](std::int64_t begin, std::int64_t end, int) {
      for (std::int64_t n = begin; n < end; ++n)
        hit[n] = target[n] >= 0 && NSA_KERNEL(T, argmax_hit_row)(x + n * V, V, target[n]) ? 1.0f : 0.0f;
    });
  });
}

}  // namespace cpu
}  // namespace nsa
#endif
