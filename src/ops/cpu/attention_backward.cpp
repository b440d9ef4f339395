// Causal attention backward, optionally with a sliding window: one pass over the tiles that recomputes scores and does
// dq, dk and dv (arXiv 2205.14135).
//
// Who does what: threads claim tiles of 192 query rows of one (b, kv head), last tiles (the longest) first; a tile
// walks the keys it sees in blocks of 96:
//   P^T = 2^(K (scale log2e Q)^T - lse); dV += P^T dO; dS^T = P^T (V dO^T - delta), in P's place; dK += dS^T Q; dQ +=
//   dS K. The exponentials and dS are made while the products are still in registers; only where the mask cuts, scores
//   go through memory.
// FLOPs: 2 (3 Dk + 2 Dv) per (query, visible key) and head. Bytes: K, V, dk, dv once per tile from the cache; q, d_o,
// dq, lse, delta once. Assumes: f32 or bf16, contiguous, T < 2^31. In bf16, where the CPU multiplies it
// (attention_backward_bf16-inl.h), P and dS are rounded to bf16; elsewhere tiles are widened as they are loaded. Sums
// are floats, and each result is rounded once. Memory: a few tiles per thread, one counter per key
// block, and one dk, dv in float when Dk or Dv is not a multiple of 16 or in bf16. Deterministic: dk and dv of a key
// block receive the tiles in one order, whoever computes them: each block has a counter whose turn it is. A tile only
// waits for tiles claimed before it, so one thread never waits and several cannot wait in a circle; the tiles of a unit
// follow each other like a pipeline.
#include <cmath>

#include "core/parallel.h"
#include "ops/cpu/attention_tiles.h"
#include "ops/cpu/kernel.h"
#include "ops/ops.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/cpu/attention_backward.cpp"
#include <hwy/foreach_target.h>

#include "ops/cpu/attention-inl.h"
#include "ops/cpu/attention_backward_bf16-inl.h"
#include "ops/cpu/row-inl.h"

HWY_BEFORE_NAMESPACE();
namespace nsa {
namespace HWY_NAMESPACE {
namespace {

using cpu::BackwardArgs;
using cpu::KeyRange;
using cpu::kTileRows;
using cpu::RowTile;

// One thread's tiles. With base == nullptr only their size is counted.
struct BackwardBuffers {
  std::int64_t ldk, ldv;
  float *q, *d_o, *dq;  // (rows, Dk), (rows, Dv), (rows, Dk)
  float *q_t, *d_o_t;   // (Dk, rows) scale * log2e * q, (Dv, rows)
  float *k, *v;         // (keys, Dk), (keys, Dv)
  float* p;             // (keys, rows) probabilities, then the gradient by the scores
  float *lse, *delta;   // (rows), lse in log2 units
  std::int64_t size;

  BackwardBuffers(const cpu::AttentionShape& a, float* base) : ldk(tile_stride(a.Dk)), ldv(tile_stride(a.Dv)) {
    TakeTiles take{base};
    q = take(kTileRows, ldk), d_o = take(kTileRows, ldv), dq = take(kTileRows, ldk);
    q_t = take(a.Dk, kScoreStride), d_o_t = take(a.Dv, kScoreStride);
    k = take(a.key_block, ldk), v = take(a.key_block, ldv);
    p = take(a.key_block, kScoreStride);
    lse = take(1, kTileRows), delta = take(1, kTileRows);
    size = take.size;
  }

  template <class T>
  void load_rows(const BackwardArgs<T>& args, const RowTile& tile) const {
    const cpu::AttentionShape& a = args.shape;
    const std::int64_t columns = tile.columns();
    gather_rows(q, ldk, args.q, a, tile, a.Dk);
    gather_rows(d_o, ldv, args.d_o, a, tile, a.Dv);
    transpose(q_t, kScoreStride, q, ldk, columns, a.Dk);
    scale_rows(q_t, kScoreStride, a.Dk, columns, kLog2e / std::sqrt(static_cast<float>(a.Dk)));
    transpose(d_o_t, kScoreStride, d_o, ldv, columns, a.Dv);
  }
  template <class T>
  void load_keys(const BackwardArgs<T>& args, std::int64_t row, std::int64_t keys) const {
    const cpu::AttentionShape& a = args.shape;
    copy_rows(k, ldk, args.k + row * a.Dk, a.Hkv * a.Dk, keys, a.Dk);
    copy_rows(v, ldv, args.v + row * a.Dv, a.Hkv * a.Dv, keys, a.Dv);
  }

  // p of one step: the probabilities, 0 where a column does not see the key.
  HWY_NOINLINE void probabilities(const cpu::AttentionShape& a, const RowTile& tile, const KeyRange& range) const {
    const std::int64_t keys = range.s1 - range.s0, c0 = range.c0, width = range.c1 - c0;
    if (!range.masked) {
      const ProbabilitySink<Queries::columns> sink{p + c0, kScoreStride, lse + c0};
      return tile_product(keys, width, a.Dk, k, ldk, 1, q_t + c0, kScoreStride, sink);
    }
    tile_gemm<false>(keys, width, a.Dk, k, ldk, 1, q_t + c0, kScoreStride, p + c0, kScoreStride);
    mask_scores(p, range, tile);
    const TileTag d;
    for (std::int64_t i = 0; i < keys; ++i)
      for (std::int64_t c = c0; c < range.c1; c += static_cast<std::int64_t>(hn::Lanes(d))) {
        float* p_ic = p + i * kScoreStride + c;
        hn::StoreU(exp2_softmax(hn::Sub(hn::LoadU(d, p_ic), hn::LoadU(d, lse + c))), d, p_ic);
      }
  }
  // What the tile gives dk and dv of the keys; p becomes the gradient by the scores.
  HWY_NOINLINE void add_to_keys(const cpu::AttentionShape& a, const KeyRange& range, float* dk, std::int64_t dk_step,
                                float* dv, std::int64_t dv_step) const {
    const std::int64_t keys = range.s1 - range.s0, c0 = range.c0, width = range.c1 - c0;
    tile_gemm<true>(keys, round_up(a.Dv, kTileN), width, p + c0, kScoreStride, 1, d_o + c0 * ldv, ldv, dv, dv_step);
    tile_product(keys, width, a.Dv, v, ldv, 1, d_o_t + c0, kScoreStride,
                 ScoreGradientSink<Queries::columns>{p + c0, kScoreStride, delta + c0});
    tile_gemm<true>(keys, round_up(a.Dk, kTileN), width, p + c0, kScoreStride, 1, q + c0 * ldk, ldk, dk, dk_step);
  }
  HWY_NOINLINE void add_to_queries(const cpu::AttentionShape& a, const KeyRange& range) const {
    const std::int64_t keys = range.s1 - range.s0, c0 = range.c0, width = range.c1 - c0;
    tile_gemm<true>(width, round_up(a.Dk, kTileN), keys, p + c0, 1, kScoreStride, k, ldk, dq + c0 * ldk, ldk);
  }
};

template <class Buffers, class T>
void load_statistics(const Buffers& t, const BackwardArgs<T>& args, const RowTile& tile) {
  for (std::int64_t r = 0; r < tile.columns(); ++r) {
    const std::int64_t row = r < tile.rows ? args.shape.query_row(tile.unit, tile.n0 + r) : -1;
    t.lse[r] = row < 0 ? 0.0f : args.lse[row] * kLog2e;
    t.delta[r] = row < 0 ? 0.0f : args.delta[row];
  }
}

template <class Buffers, class T>
void store_dq(const Buffers& t, const BackwardArgs<T>& args, const RowTile& tile) {
  const cpu::AttentionShape& a = args.shape;
  const TileVec scale = row_set(1.0f / std::sqrt(static_cast<float>(a.Dk))), zero = row_set(0.0f);
  for (std::int64_t r = 0; r < tile.rows; ++r) {
    const float* from = t.dq + r * t.ldk;
    T* to = args.dq + a.query_row(tile.unit, tile.n0 + r) * a.Dk;
    const bool add = args.dq_mode == Write::add;
    for_row(a.Dk, [&](auto at, std::int64_t c) HWY_ATTR {
      at.store(hn::MulAdd(at.load(from + c), scale, add ? at.load(to + c) : zero), to + c);
    });
  }
}

// The first tile of a block clears its sums.
template <class T>
void clear_block(const BackwardArgs<T>& args, std::int64_t unit, std::int64_t block) {
  const cpu::AttentionShape& a = args.shape;
  for (std::int64_t s = block * a.key_block; s < std::min(a.T, (block + 1) * a.key_block); ++s) {
    std::fill_n(args.dk_sum.row(a, unit, s), args.dk_sum.width, 0.0f);
    std::fill_n(args.dv_sum.row(a, unit, s), args.dv_sum.width, 0.0f);
  }
}

// The last tile of a block turns its sums into the outputs.
template <class T>
void finish_block(const BackwardArgs<T>& args, std::int64_t unit, std::int64_t block) {
  const cpu::AttentionShape& a = args.shape;
  const TileVec scale = row_set(1.0f / std::sqrt(static_cast<float>(a.Dk)));
  for (std::int64_t s = block * a.key_block; s < std::min(a.T, (block + 1) * a.key_block); ++s) {
    const std::int64_t row = a.key_row(unit, s);
    const float *dk_sum = args.dk_sum.row(a, unit, s), *dv_sum = args.dv_sum.row(a, unit, s);
    T *dk = args.dk + row * a.Dk, *dv = args.dv + row * a.Dv;
    for_row(a.Dk, [&](auto at, std::int64_t c) HWY_ATTR { at.store(hn::Mul(at.load(dk_sum + c), scale), dk + c); });
    if (static_cast<const void*>(args.dv_sum.data) != args.dv)
      for_row(a.Dv, [&](auto at, std::int64_t c) HWY_ATTR { at.store(at.load(dv_sum + c), dv + c); });
  }
}

template <class Buffers, class T>
void backward_tile(const Buffers& t, const BackwardArgs<T>& args, std::int64_t unit, std::int64_t tile_index) {
  const cpu::AttentionShape& a = args.shape;
  const RowTile tile(a, unit, tile_index);
  t.load_rows(args, tile);
  load_statistics(t, args, tile);
  std::fill_n(t.dq, kTileRows * t.ldk, 0.0f);
  for (std::int64_t s0 = tile.key_begin; s0 < tile.key_end;) {
    const KeyRange range = tile.keys_from(s0);
    const std::int64_t block = s0 / a.key_block;
    t.load_keys(args, a.key_row(unit, s0), range.s1 - s0);
    t.probabilities(a, tile, range);
    std::int32_t& turn = args.turns[unit * a.key_blocks() + block];
    const std::int32_t tiles_before = static_cast<std::int32_t>(a.last_tile_of(block) - tile_index);
    wait_for(turn, tiles_before);
    if (tiles_before == 0 && (s0 == tile.key_begin || s0 % a.key_block == 0)) clear_block(args, unit, block);
    t.add_to_keys(a, range, args.dk_sum.row(a, unit, s0), args.dk_sum.step, args.dv_sum.row(a, unit, s0),
                  args.dv_sum.step);
    s0 = range.s1;
    if (s0 == tile.key_end || s0 % a.key_block == 0) {
      if (tile_index == a.first_tile_of(block)) finish_block(args, unit, block);
      pass_turn(turn, tiles_before + 1);
    }
    t.add_to_queries(a, range);
  }
  store_dq(t, args, tile);
}

std::int64_t backward_scratch(const cpu::AttentionShape& shape) {
#if HWY_TARGET == HWY_AVX3
  if (shape.pairs) return BackwardPairs(shape, nullptr).size;
#endif
  return BackwardBuffers(shape, nullptr).size;
}
void backward_tile_f32(const BackwardArgs<float>& args, std::int64_t unit, std::int64_t tile, float* scratch) {
  backward_tile(BackwardBuffers(args.shape, scratch), args, unit, tile);
}
void backward_tile_bf16(const BackwardArgs<bf16>& args, std::int64_t unit, std::int64_t tile, float* scratch) {
#if HWY_TARGET == HWY_AVX3
  if (args.shape.pairs) return backward_tile(BackwardPairs(args.shape, scratch), args, unit, tile);
#endif
  backward_tile(BackwardBuffers(args.shape, scratch), args, unit, tile);
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace nsa
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace nsa {
HWY_EXPORT(backward_scratch);
HWY_EXPORT(backward_tile_f32);
HWY_EXPORT(backward_tile_bf16);

namespace cpu {

void attention_backward(Device& dev, Out dq, Out dk, Out dv, In d_o, In delta, In lse, In q, In k, In v,
                        std::int64_t window, Write dq_mode) {
  const AttentionShape a(q, k, v, window);
  ArenaScope scope(dev.work);
  const Tensor scratch = dev.scratch({dev.threads, HWY_DYNAMIC_DISPATCH(backward_scratch)(a)});
  const Tensor turns = dev.scratch({a.units(), a.key_blocks()}, DType::i32);
  const auto sum_of = [&](In output, std::int64_t D) -> KeySum {
    const std::int64_t width = (D + 15) / 16 * 16;
    if (output.dtype == DType::f32 && D == width) return {output.raw<float>(), width, a.Hkv * width};
    return {dev.scratch({a.B, a.Hkv, a.T, width}).raw<float>(), width, width};
  };
  const KeySum dk_sum = sum_of(dk, a.Dk), dv_sum = sum_of(dv, a.Dv);
  if (dev.planning()) return;
  std::fill_n(turns.raw<std::int32_t>(), turns.numel(), 0);
  const std::int64_t units = a.units(), last = a.tiles() - 1;
  dispatch_type(q.dtype, [&]<class T>() {
    const BackwardArgs<T> args{a,
                               dq.raw<T>(),
                               dq_mode,
                               dk.raw<T>(),
                               dv.raw<T>(),
                               dk_sum,
                               dv_sum,
                               d_o.raw<T>(),
                               delta.raw<float>(),
                               lse.raw<float>(),
                               q.raw<T>(),
                               k.raw<T>(),
                               v.raw<T>(),
                               turns.raw<std::int32_t>()};
    parallel_in_order(dev.threads, units * (last + 1), [&](std::int64_t i, int thread) {
      NSA_KERNEL(T, backward_tile)
      (args, i % units, last - i / units, scratch.raw<float>() + thread * scratch.dim(1));
    });
  });
}

}  // namespace cpu
}  // namespace nsa
#endif
