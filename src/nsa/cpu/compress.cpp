// Compression (Eq. 7): each block of l tokens, starting every d tokens, becomes one key or value.
//
// Blocks overlap by l-d tokens, so W1 (E, l*D) is read as R = l/d chunk matrices (E*R, d*D) and applied once to every
// non-overlapping chunk of d tokens: ONE GEMM per kv head over (B*chunks, d*D). Block i is then the sum of R of its
// outputs, from the chunks i .. i+R-1. The position term W1 pos is a constant. Only the chunks of complete blocks exist
// (Tc + R - 1 per sequence), so nothing is padded. Bytes: the chunks of one head are B*T*D floats; FLOPs forward: 2 B T
// (l/d) D E per head. Reductions: GEMMs and column sums, fixed order.
#include <algorithm>

#include "core/parallel.h"
#include "nsa/ops.h"
#include "ops/cpu/convert.h"
#include "ops/cpu/grain.h"
#include "ops/cpu/kernel.h"
#include "ops/ops.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "nsa/cpu/compress.cpp"
#include <hwy/foreach_target.h>

#include "ops/cpu/row-inl.h"

HWY_BEFORE_NAMESPACE();
namespace nsa {
namespace HWY_NAMESPACE {
namespace {

// act = silu(z); act may be z.
template <class T>
HWY_INLINE void silu_piece(T* act, const T* z, std::int64_t n) {
  for_row(n, [&](auto at, std::int64_t i) HWY_ATTR {
    const TileVec v = at.load(z + i);
    at.store(hn::Mul(v, sigmoid(v)), act + i);
  });
}

// dz *= silu'(z), silu'(z) = s + z s (1 - s).
template <class T>
HWY_INLINE void silu_backward_piece(T* dz, const T* z, std::int64_t n) {
  const TileVec one = row_set(1.0f);
  for_row(n, [&](auto at, std::int64_t i) HWY_ATTR {
    const TileVec v = at.load(z + i), s = sigmoid(v);
    at.store(hn::Mul(at.load(dz + i), hn::MulAdd(hn::Mul(v, s), hn::Sub(one, s), s)), dz + i);
  });
}

void silu_piece_f32(float* act, const float* z, std::int64_t n) { silu_piece(act, z, n); }
void silu_piece_bf16(bf16* act, const bf16* z, std::int64_t n) { silu_piece(act, z, n); }
void silu_backward_piece_f32(float* dz, const float* z, std::int64_t n) { silu_backward_piece(dz, z, n); }
void silu_backward_piece_bf16(bf16* dz, const bf16* z, std::int64_t n) { silu_backward_piece(dz, z, n); }

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace nsa
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace nsa {
HWY_EXPORT(silu_piece_f32);
HWY_EXPORT(silu_piece_bf16);
HWY_EXPORT(silu_backward_piece_f32);
HWY_EXPORT(silu_backward_piece_bf16);

namespace cpu {
namespace {

/// Sizes of one call. Arrays of one kv head are called *_h.
struct Sizes {
  std::int64_t B, T, Hkv, D, E, Tc, R, chunks, l, d;

  Sizes(In x, std::int64_t hidden, const NsaShape& geometry)
      : B(x.dim(0)),
        T(x.dim(1)),
        Hkv(x.dim(2)),
        D(x.dim(3)),
        E(hidden),
        Tc(geometry.Tc(T)),
        R(geometry.l / geometry.d),
        chunks(Tc ? Tc + R - 1 : 0),
        l(geometry.l),
        d(geometry.d) {}

  Tensor w1_chunks(In w1, std::int64_t h) const { return w1.rows(h, h + 1).view({E * R, d * D}); }
  Tensor w1_blocks(In w1, std::int64_t h) const { return w1.rows(h, h + 1).view({E, l * D}); }
  Tensor pos_row(In pos, std::int64_t h) const { return pos.rows(h, h + 1).view({1, l * D}); }
  Tensor w2_head(In w2, std::int64_t h) const { return w2.rows(h, h + 1).view({D, E}); }
};

/// Rows inside a tensor: the first begins at element `first`, the next `stride` elements behind it.
struct Rows {
  const Tensor& of;
  std::int64_t first, stride;
};

void copy_rows(Device& dev, const Rows& to, const Rows& from, std::int64_t rows, std::int64_t width) {
  dispatch_type(to.of.dtype, [&]<class To>() {
    dispatch_type(from.of.dtype, [&]<class From>() {
      To* to_0 = to.of.raw<To>() + to.first;
      const From* from_0 = from.of.raw<From>() + from.first;
      parallel_ranges(dev.threads, rows, rows_per_piece(width), [&](std::int64_t begin, std::int64_t end, int) {
        for (std::int64_t n = begin; n < end; ++n) convert(to_0 + n * to.stride, from_0 + n * from.stride, width);
      });
    });
  });
}

/// chunks_h (B*chunks, d*D) = the tokens of head h of x (B,T,Hkv,D); d token rows are one chunk row.
void gather_chunks(Device& dev, Out chunks_h, In x, std::int64_t h, const Sizes& z) {
  if (dev.planning()) return;
  const std::int64_t tokens = z.chunks * z.d;
  for (std::int64_t b = 0; b < z.B; ++b)
    copy_rows(dev, {chunks_h, b * tokens * z.D, z.D}, {x, (b * z.T * z.Hkv + h) * z.D, z.Hkv * z.D}, tokens, z.D);
}

/// The opposite, into dx; tokens behind the last complete block are in no block: 0.
void scatter_chunks(Device& dev, Out dx, In chunks_h, std::int64_t h, const Sizes& z) {
  if (dev.planning()) return;
  const std::int64_t tokens = z.chunks * z.d;
  for (std::int64_t b = 0; b < z.B; ++b) {
    copy_rows(dev, {dx, (b * z.T * z.Hkv + h) * z.D, z.Hkv * z.D}, {chunks_h, b * tokens * z.D, z.D}, tokens, z.D);
    dispatch_type(dx.dtype, [&]<class Type>() {
      for (std::int64_t t = tokens; t < z.T; ++t)
        std::fill_n(dx.raw<Type>() + ((b * z.T + t) * z.Hkv + h) * z.D, z.D, Type(0.0f));
    });
  }
}

/// y_h (rows, W) = head h of y (B,Tc,Hkv,W), rows = B*Tc
void gather_head(Device& dev, Out y_h, In y, std::int64_t h) {
  if (dev.planning()) return;
  const std::int64_t Hkv = y.dim(2), W = y.dim(3);
  copy_rows(dev, {y_h, 0, W}, {y, h * W, Hkv * W}, y_h.dim(0), W);
}

void scatter_head(Device& dev, Out y, In y_h, std::int64_t h) {
  if (dev.planning()) return;
  const std::int64_t Hkv = y.dim(2), W = y.dim(3);
  copy_rows(dev, {y, h * W, Hkv * W}, {y_h, 0, W}, y_h.dim(0), W);
}

/// Every row of y (N,W) = row h of bias (Hkv,W)
void fill_rows(Device& dev, Out y, In bias, std::int64_t h) {
  if (dev.planning()) return;
  const std::int64_t W = y.dim(1);
  copy_rows(dev, {y, 0, W}, {bias, h * W, 0}, y.dim(0), W);
}

/// z_h[b,i,e] = offset[e] + sum_r part[b, i+r, e*R + r]: block i from its R chunks. offset (1,E) and part are f32
void add_chunks(Device& dev, Out z_h, In part, In offset, const Sizes& z) {
  if (dev.planning()) return;
  const float *part_0 = part.raw<float>(), *offset_0 = offset.raw<float>();
  dispatch_type(z_h.dtype, [&]<class Type>() {
    Type* z_0 = z_h.raw<Type>();
    parallel_ranges(dev.threads, z.B * z.Tc, rows_per_piece(z.E * z.R), [&](std::int64_t begin, std::int64_t end, int) {
      for (std::int64_t row = begin; row < end; ++row) {
        const float* part_bi = part_0 + (row / z.Tc * z.chunks + row % z.Tc) * z.E * z.R;
        Type* z_bi = z_0 + row * z.E;
        for (std::int64_t e = 0; e < z.E; ++e) {
          float sum = offset_0[e];
          for (std::int64_t r = 0; r < z.R; ++r) sum += part_bi[r * z.E * z.R + e * z.R + r];
          z_bi[e] = static_cast<Type>(sum);
        }
      }
    });
  });
}

/// The transpose: d_part[b, k, e*R + r] = dz_h[b, k-r, e], 0 where there is no block k-r.
void spread_chunks(Device& dev, Out d_part, In dz_h, const Sizes& z) {
  if (dev.planning()) return;
  dispatch_type(dz_h.dtype, [&]<class Type>() {
    Type* d_part_0 = d_part.raw<Type>();
    const Type* dz_0 = dz_h.raw<Type>();
    const auto row = [&](std::int64_t bk) {
      const std::int64_t b = bk / z.chunks, k = bk % z.chunks;
      Type* d_part_bk = d_part_0 + bk * z.E * z.R;
      for (std::int64_t r = 0; r < z.R; ++r) {
        const bool exists = 0 <= k - r && k - r < z.Tc;
        const Type* dz_bi = exists ? dz_0 + (b * z.Tc + k - r) * z.E : nullptr;
        for (std::int64_t e = 0; e < z.E; ++e) d_part_bk[e * z.R + r] = exists ? dz_bi[e] : Type(0.0f);
      }
    };
    parallel_ranges(dev.threads, z.B * z.chunks, rows_per_piece(z.E * z.R),
                    [&](std::int64_t begin, std::int64_t end, int) {
                      for (std::int64_t bk = begin; bk < end; ++bk) row(bk);
                    });
  });
}

/// Row h of sum (Hkv,W) = [that row +] the column sums of y (N,W), each column from the first row to the last, in
/// double
void column_sums(Device& dev, Out sum, std::int64_t h, In y, Write mode) {
  if (dev.planning()) return;
  constexpr std::int64_t kColumns = 64;
  const std::int64_t N = y.dim(0), W = y.dim(1);
  dispatch_type(sum.dtype, [&]<class Sum>() {
    dispatch_type(y.dtype, [&]<class Type>() {
      Sum* sum_h = sum.raw<Sum>() + h * W;
      const Type* y_n = y.raw<Type>();
      parallel_ranges(dev.threads, W, kColumns, [&](std::int64_t begin, std::int64_t end, int) {
        double total[kColumns] = {};
        for (std::int64_t n = 0; n < N; ++n)
          for (std::int64_t c = begin; c < end; ++c) total[c - begin] += static_cast<float>(y_n[n * W + c]);
        for (std::int64_t c = begin; c < end; ++c) {
          const float before = mode == Write::add ? static_cast<float>(sum_h[c]) : 0.0f;
          sum_h[c] = static_cast<Sum>(static_cast<float>(total[c - begin]) + before);
        }
      });
    });
  });
}

void silu(Device& dev, Out act, In z_h) {
  if (dev.planning()) return;
  dispatch_type(z_h.dtype, [&]<class Type>() {
    Type* to = act.raw<Type>();
    const Type* from = z_h.raw<Type>();
    parallel_ranges(dev.threads, z_h.numel(), kPiece, [&](std::int64_t begin, std::int64_t end, int) {
      NSA_KERNEL(Type, silu_piece)(to + begin, from + begin, end - begin);
    });
  });
}

void silu_backward(Device& dev, InOut dz_h, In z_h) {
  if (dev.planning()) return;
  dispatch_type(z_h.dtype, [&]<class Type>() {
    Type* dz = dz_h.raw<Type>();
    const Type* z = z_h.raw<Type>();
    parallel_ranges(dev.threads, z_h.numel(), kPiece, [&](std::int64_t begin, std::int64_t end, int) {
      NSA_KERNEL(Type, silu_backward_piece)(dz + begin, z + begin, end - begin);
    });
  });
}

constexpr std::int64_t kSums = 256;  // columns summed at a time

// mean: kv heads are not told apart, a row is (Hkv*D).
void mean_forward(Device& dev, Out c, In x, const Sizes& z) {
  if (dev.planning()) return;
  const std::int64_t W = z.Hkv * z.D;
  const float scale = 1.0f / static_cast<float>(z.l);
  dispatch_type(x.dtype, [&]<class Type>() {
    const auto columns = [&](std::int64_t row, std::int64_t first) {
      const std::int64_t n = std::min(kSums, W - first);
      const Type* x_bt = x.raw<Type>() + (row / z.Tc * z.T + row % z.Tc * z.d) * W + first;
      float sum[kSums] = {};
      for (std::int64_t r = 0; r < z.l; ++r, x_bt += W)
        for (std::int64_t k = 0; k < n; ++k) sum[k] += static_cast<float>(x_bt[k]);
      Type* c_bi = c.raw<Type>() + row * W + first;
      for (std::int64_t k = 0; k < n; ++k) c_bi[k] = static_cast<Type>(sum[k] * scale);
    };
    parallel_ranges(dev.threads, z.B * z.Tc, rows_per_piece(z.l * W), [&](std::int64_t begin, std::int64_t end, int) {
      for (std::int64_t row = begin; row < end; ++row)
        for (std::int64_t first = 0; first < W; first += kSums) columns(row, first);
    });
  });
}

/// dx_t = sum of dc_i / l over the blocks i that hold t: max(0, t-l+1) <= i*d <= t
void mean_backward(Device& dev, Out dx, In dc, const Sizes& z) {
  if (dev.planning()) return;
  const std::int64_t W = z.Hkv * z.D;
  const float scale = 1.0f / static_cast<float>(z.l);
  dispatch_type(dc.dtype, [&]<class Type>() {
    const auto columns = [&](std::int64_t row, std::int64_t first) {
      const std::int64_t n = std::min(kSums, W - first), b = row / z.T, t = row % z.T;
      const std::int64_t begin = std::max<std::int64_t>(0, t / z.d - z.R + 1), last = std::min(t / z.d, z.Tc - 1);
      float sum[kSums] = {};
      for (std::int64_t i = begin; i <= last; ++i) {
        const Type* dc_bi = dc.raw<Type>() + (b * z.Tc + i) * W + first;
        for (std::int64_t k = 0; k < n; ++k) sum[k] += scale * static_cast<float>(dc_bi[k]);
      }
      convert(dx.raw<Type>() + row * W + first, sum, n);
    };
    parallel_ranges(dev.threads, z.B * z.T, rows_per_piece(W), [&](std::int64_t begin, std::int64_t end, int) {
      for (std::int64_t row = begin; row < end; ++row)
        for (std::int64_t first = 0; first < W; first += kSums) columns(row, first);
    });
  });
}

}  // namespace

void compress_forward(Device& dev, Out c, Saved hidden, In x, const CompressWeights& weights, Compressor kind,
                      const NsaShape& geometry) {
  const Sizes z(x, weights.w1 ? weights.w1.dim(1) : 0, geometry);
  if (z.Tc == 0) return;
  if (kind == Compressor::mean) return mean_forward(dev, c, x, z);
  const bool mlp = kind == Compressor::mlp;

  ArenaScope scope(dev.work);
  const Tensor chunks_h = dev.scratch({z.B * z.chunks, z.d * z.D}, x.dtype);
  const Tensor part = dev.scratch({z.B * z.chunks, z.E * z.R}), offset = dev.scratch({1, z.E});  // sums are f32
  const Tensor z_h = dev.scratch({z.B * z.Tc, z.E}, x.dtype), c_h = mlp ? dev.scratch({z.B * z.Tc, z.D}) : z_h;
  for (std::int64_t h = 0; h < z.Hkv; ++h) {
    // z = W1 (x + pos) + b1
    gather_chunks(dev, chunks_h, x, h, z);
    matmul_forward(dev, part, chunks_h, z.w1_chunks(weights.w1, h), Write::overwrite);
    if (mlp) fill_rows(dev, offset, weights.b1, h);
    matmul_forward(dev, offset, z.pos_row(weights.pos, h), z.w1_blocks(weights.w1, h),
                   mlp ? Write::add : Write::overwrite);
    add_chunks(dev, z_h, part, offset, z);
    // c = W2 silu(z) + b2
    if (mlp) {
      scatter_head(dev, hidden, z_h, h);
      silu(dev, z_h, z_h);
      fill_rows(dev, c_h, weights.b2, h);
      matmul_forward(dev, c_h, z_h, z.w2_head(weights.w2, h), Write::add);
    }
    scatter_head(dev, c, c_h, h);
  }
}

void compress_backward(Device& dev, Out dx, const CompressWeights& d_weights, In dc, In hidden, In x,
                       const CompressWeights& weights, Compressor kind, const NsaShape& geometry) {
  const Sizes z(x, weights.w1 ? weights.w1.dim(1) : 0, geometry);
  if (z.Tc == 0) return fill(dev, dx, 0.0f);
  if (kind == Compressor::mean) return mean_backward(dev, dx, dc, z);
  const bool mlp = kind == Compressor::mlp;

  ArenaScope scope(dev.work);
  const auto scratch = [&](const Shape& dims) { return dev.scratch(dims, x.dtype); };  // all are operands of products
  const Tensor chunks_h = scratch({z.B * z.chunks, z.d * z.D}), d_part = scratch({z.B * z.chunks, z.E * z.R}),
               dz_sum = scratch({1, z.E});
  const Tensor dc_h = scratch({z.B * z.Tc, z.D});
  const auto mlp_scratch = [&] { return mlp ? scratch({z.B * z.Tc, z.E}) : Tensor{}; };
  const Tensor z_h = mlp_scratch(), act = mlp_scratch(), dz_h = mlp ? mlp_scratch() : dc_h;  // linear: z is c
  for (std::int64_t h = 0; h < z.Hkv; ++h) {
    gather_head(dev, dc_h, dc, h);
    // c = W2 silu(z) + b2
    if (mlp) {
      gather_head(dev, z_h, hidden, h);
      silu(dev, act, z_h);
      matmul_backward_weight(dev, z.w2_head(d_weights.w2, h), dc_h, act);
      column_sums(dev, d_weights.b2, h, dc_h, Write::add);
      matmul_backward_input(dev, dz_h, dc_h, z.w2_head(weights.w2, h), Write::overwrite);
      silu_backward(dev, dz_h, z_h);
      column_sums(dev, d_weights.b1, h, dz_h, Write::add);
    }
    // z = W1 (x + pos) + b1: pos is in every block, so it meets the sum of dz
    column_sums(dev, dz_sum, 0, dz_h, Write::overwrite);
    matmul_backward_input(dev, z.pos_row(d_weights.pos, h), dz_sum, z.w1_blocks(weights.w1, h), Write::add);
    matmul_backward_weight(dev, z.w1_blocks(d_weights.w1, h), dz_sum, z.pos_row(weights.pos, h));
    spread_chunks(dev, d_part, dz_h, z);
    gather_chunks(dev, chunks_h, x, h, z);
    matmul_backward_weight(dev, z.w1_chunks(d_weights.w1, h), d_part, chunks_h);
    matmul_backward_input(dev, chunks_h, d_part, z.w1_chunks(weights.w1, h),
                          Write::overwrite);  // the gradient takes the place of the gathered x
    scatter_chunks(dev, dx, chunks_h, h, z);
  }
}

}  // namespace cpu
}  // namespace nsa
#endif  // HWY_ONCE
