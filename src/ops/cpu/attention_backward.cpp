// Causal attention backward, optionally with a sliding window: one pass over the tiles that recomputes scores and does
// dq, dk and dv (arXiv 2205.14135).
//
// Who does what: threads claim tiles of 192 query rows of one (b, kv head), last tiles (the longest) first; a tile
// walks the keys it sees in blocks of 96:
//   P^T = 2^(K (scale log2e Q)^T - lse); dV += P^T dO; dS^T = P^T (V dO^T - delta), in P's place; dK += dS^T Q; dQ +=
//   dS K. The exponentials and dS are made while the products are still in registers; only where the mask cuts, scores
//   go through memory.
// FLOPs: 2 (3 Dk + 2 Dv) per (query, visible key) and head. Bytes: K, V, dk, dv once per tile from the cache; q, d_o,
// dq, lse, delta once. Assumes: f32 or bf16, contiguous, T < 2^31. In bf16 tiles are widened as they are loaded,
// everything is summed in float, and each result is rounded once. Memory: a few tiles per thread, one counter per key
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
#include "ops/cpu/row-inl.h"

HWY_BEFORE_NAMESPACE();
namespace nsa {
namespace HWY_NAMESPACE {
namespace {

using cpu::BackwardArgs;
using cpu::KeyRange;
using cpu::kKeyBlock;
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

  BackwardBuffers(const cpu::AttentionShape& a, float* base) : ldk(tile_stride(a.Dk)), ldv(tile_stride(a.Dv)), size(0) {
    const auto take = [&](std::int64_t rows, std::int64_t stride) {
      float* start = base ? base + size : nullptr;
      size += rows * stride;
      return start;
    };
    q = take(kTileRows, ldk), d_o = take(kTileRows, ldv), dq = take(kTileRows, ldk);
    q_t = take(a.Dk, kScoreStride), d_o_t = take(a.Dv, kScoreStride);
    k = take(kKeyBlock, ldk), v = take(kKeyBlock, ldv);
    p = take(kKeyBlock, kScoreStride);
    lse = take(1, kTileRows), delta = take(1, kTileRows);
  }
};

template <class T>
void load_rows(const BackwardBuffers& t, const BackwardArgs<T>& args, const RowTile& tile) {
  const cpu::AttentionShape& a = args.shape;
  const std::int64_t columns = tile.columns();
  gather_rows(t.q, t.ldk, args.q, a, tile, a.Dk);
  gather_rows(t.d_o, t.ldv, args.d_o, a, tile, a.Dv);
  transpose(t.q_t, kScoreStride, t.q, t.ldk, columns, a.Dk);
  scale_rows(t.q_t, kScoreStride, a.Dk, columns, kLog2e / std::sqrt(static_cast<float>(a.Dk)));
  transpose(t.d_o_t, kScoreStride, t.d_o, t.ldv, columns, a.Dv);
  std::fill_n(t.dq, kTileRows * t.ldk, 0.0f);
  for (std::int64_t r = 0; r < columns; ++r) {
    const std::int64_t row = r < tile.rows ? a.query_row(tile.unit, tile.n0 + r) : -1;
    t.lse[r] = row < 0 ? 0.0f : args.lse[row] * kLog2e;
    t.delta[r] = row < 0 ? 0.0f : args.delta[row];
  }
}

template <class T>
void store_dq(const BackwardBuffers& t, const BackwardArgs<T>& args, const RowTile& tile) {
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

// t.p (keys, columns) of one step: the probabilities, 0 where a column does not see the key.
HWY_NOINLINE void probabilities(const BackwardBuffers& t, const cpu::AttentionShape& a, const RowTile& tile,
                                const KeyRange& range) {
  const std::int64_t keys = range.s1 - range.s0, c0 = range.c0, width = range.c1 - c0;
  if (!range.masked) {
    const ProbabilitySink<Queries::columns> sink{t.p + c0, kScoreStride, t.lse + c0};
    return tile_product(keys, width, a.Dk, t.k, t.ldk, 1, t.q_t + c0, kScoreStride, sink);
  }
  tile_gemm<false>(keys, width, a.Dk, t.k, t.ldk, 1, t.q_t + c0, kScoreStride, t.p + c0, kScoreStride);
  mask_scores(t.p, range, tile);
  const TileTag d;
  for (std::int64_t i = 0; i < keys; ++i)
    for (std::int64_t c = c0; c < range.c1; c += static_cast<std::int64_t>(hn::Lanes(d))) {
      float* p_ic = t.p + i * kScoreStride + c;
      hn::StoreU(exp2_softmax(hn::Sub(hn::LoadU(d, p_ic), hn::LoadU(d, t.lse + c))), d, p_ic);
    }
}

// The first tile of a block clears its sums.
void clear_block(const cpu::AttentionShape& a, const cpu::KeySums& sums, std::int64_t unit, std::int64_t block) {
  for (std::int64_t s = block * kKeyBlock; s < std::min(a.T, (block + 1) * kKeyBlock); ++s) {
    std::fill_n(sums.dk + a.key_row(unit, s) * sums.dk_width, sums.dk_width, 0.0f);
    std::fill_n(sums.dv + a.key_row(unit, s) * sums.dv_width, sums.dv_width, 0.0f);
  }
}

// What a tile gives dk and dv of the keys in t.k and t.v; t.p becomes the gradient by the scores.
HWY_NOINLINE void add_to_keys(const BackwardBuffers& t, const cpu::AttentionShape& a, const cpu::KeySums& sums,
                              const KeyRange& range, std::int64_t row) {
  const std::int64_t keys = range.s1 - range.s0, c0 = range.c0, width = range.c1 - c0;
  tile_gemm<true>(keys, round_up(a.Dv, kTileN), width, t.p + c0, kScoreStride, 1, t.d_o + c0 * t.ldv, t.ldv,
                  sums.dv + row * sums.dv_width, a.Hkv * sums.dv_width);
  tile_product(keys, width, a.Dv, t.v, t.ldv, 1, t.d_o_t + c0, kScoreStride,
               ScoreGradientSink<Queries::columns>{t.p + c0, kScoreStride, t.delta + c0});
  tile_gemm<true>(keys, round_up(a.Dk, kTileN), width, t.p + c0, kScoreStride, 1, t.q + c0 * t.ldk, t.ldk,
                  sums.dk + row * sums.dk_width, a.Hkv * sums.dk_width);
}

HWY_NOINLINE void add_to_queries(const BackwardBuffers& t, const cpu::AttentionShape& a, const KeyRange& range) {
  const std::int64_t keys = range.s1 - range.s0, c0 = range.c0, width = range.c1 - c0;
  tile_gemm<true>(width, round_up(a.Dk, kTileN), keys, t.p + c0, 1, kScoreStride, t.k, t.ldk, t.dq + c0 * t.ldk, t.ldk);
}

// The last tile of a block turns its sums into the outputs.
template <class T>
void finish_block(const BackwardArgs<T>& args, std::int64_t unit, std::int64_t block) {
  const cpu::AttentionShape& a = args.shape;
  const TileVec scale = row_set(1.0f / std::sqrt(static_cast<float>(a.Dk)));
  for (std::int64_t s = block * kKeyBlock; s < std::min(a.T, (block + 1) * kKeyBlock); ++s) {
    const std::int64_t row = a.key_row(unit, s);
    const float *dk_sum = args.sums.dk + row * args.sums.dk_width, *dv_sum = args.sums.dv + row * args.sums.dv_width;
    T *dk = args.dk + row * a.Dk, *dv = args.dv + row * a.Dv;
    for_row(a.Dk, [&](auto at, std::int64_t c) HWY_ATTR { at.store(hn::Mul(at.load(dk_sum + c), scale), dk + c); });
    if (static_cast<const void*>(args.sums.dv) != args.dv)
      for_row(a.Dv, [&](auto at, std::int64_t c) HWY_ATTR { at.store(at.load(dv_sum + c), dv + c); });
  }
}

std::int64_t backward_scratch(const cpu::AttentionShape& shape) { return BackwardBuffers(shape, nullptr).size; }

template <class T>
void backward_tile(const BackwardArgs<T>& args, std::int64_t unit, std::int64_t tile_index, float* scratch) {
  const cpu::AttentionShape& a = args.shape;
  const BackwardBuffers t(a, scratch);
  const RowTile tile(a, unit, tile_index);
  load_rows(t, args, tile);
  for (std::int64_t s0 = tile.key_begin; s0 < tile.key_end;) {
    const KeyRange range = tile.keys_from(s0);
    const std::int64_t keys = range.s1 - range.s0, row = a.key_row(unit, s0), block = s0 / kKeyBlock;
    copy_rows(t.k, t.ldk, args.k + row * a.Dk, a.Hkv * a.Dk, keys, a.Dk);
    copy_rows(t.v, t.ldv, args.v + row * a.Dv, a.Hkv * a.Dv, keys, a.Dv);
    probabilities(t, a, tile, range);
    std::int32_t& turn = args.turns[unit * a.key_blocks() + block];
    const std::int32_t tiles_before = static_cast<std::int32_t>(a.last_tile_of(block) - tile_index);
    wait_for(turn, tiles_before);
    if (tiles_before == 0 && (s0 == tile.key_begin || s0 % kKeyBlock == 0)) clear_block(a, args.sums, unit, block);
    add_to_keys(t, a, args.sums, range, row);
    s0 = range.s1;
    if (s0 == tile.key_end || s0 % kKeyBlock == 0) {
      if (tile_index == a.first_tile_of(block)) finish_block(args, unit, block);
      pass_turn(turn, tiles_before + 1);
    }
    add_to_queries(t, a, range);
  }
  store_dq(t, args, tile);
}
void backward_tile_f32(const BackwardArgs<float>& args, std::int64_t unit, std::int64_t tile, float* scratch) {
  backward_tile(args, unit, tile, scratch);
}
void backward_tile_bf16(const BackwardArgs<bf16>& args, std::int64_t unit, std::int64_t tile, float* scratch) {
  backward_tile(args, unit, tile, scratch);
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
  const auto sums_of = [&](In output, std::int64_t D) {
    const bool fits = output.dtype == DType::f32 && D % 16 == 0;
    return fits ? output : dev.scratch({a.B, a.T, a.Hkv, (D + 15) / 16 * 16});
  };
  const Tensor dk_sum = sums_of(dk, a.Dk), dv_sum = sums_of(dv, a.Dv);
  if (dev.planning()) return;
  std::fill_n(turns.raw<std::int32_t>(), turns.numel(), 0);
  const KeySums sums{dk_sum.raw<float>(), dv_sum.raw<float>(), dk_sum.dim(3), dv_sum.dim(3)};
  const std::int64_t units = a.units(), last = a.tiles() - 1;
  dispatch_type(q.dtype, [&]<class T>() {
    const BackwardArgs<T> args{a,
                               dq.raw<T>(),
                               dq_mode,
                               dk.raw<T>(),
                               dv.raw<T>(),
                               sums,
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
