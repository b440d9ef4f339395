// Selected branch, forward and backward: query t attends to the tokens s <= t of the n blocks it chose.
// Who does what: key-outer inside a segment of queries. For every block the queries of the segment that chose it are
// gathered into tiles of queries x G heads,
//   so tiles are full whatever G is and however little neighbours agree, and a key block is loaded once per segment.
//   Forward: one segment per piece of work; o, m and l of its queries go through memory between blocks. Where all
//   queries of a segment chose all blocks they see (the first n l' tokens), they are walked in order instead, and stay
//   loaded from block to block. Backward: all five products of a (tile, block) pair at once; a piece is a pair (segment
//   s of queries, segment c of blocks), c <= s, and pieces with equal (s + c) mod (odd number of segments) touch
//   different queries and different keys. Such sets follow each other, and a piece waits for those of earlier sets that
//   share its queries or its keys. So neither dq nor dk, dv needs atomics, copies or a second pass.
// Bytes and FLOPs: 2 (forward) / 5 (backward) products of H * T * n l' * D multiply-adds; (query, block) pairs move 3
// (forward) / 4 (backward) rows of G * D
//   floats, against 2 l' / 5 l' multiply-adds for each. Packed keys 2 (forward) / 3 + 2 (backward) times k's size,
//   inverse index T n ints.
// Assumes f32 or bf16, H a multiple of Hkv, no block twice in a query's list; any other size works. In bf16 the sums of
// o and of dq that go through memory are f32 scratch; each result is rounded once. Where the CPU multiplies bf16
// (branch_bf16-inl.h), P and dS are rounded to it too.
// Determinism: segments, and the order in which pieces add to a segment's dq and to its dk, dv, depend on the shapes
// and on `selected` alone.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "nsa/cpu/attend_selected.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "nsa/cpu/branch_bf16-inl.h"
#include "nsa/cpu/inverse_index.h"
#include "nsa/ops.h"

HWY_BEFORE_NAMESPACE();
namespace nsa {
namespace HWY_NAMESPACE {
namespace {

using cpu::InverseIndex;
using cpu::sum_of;

template <class T>
struct ForwardState {
  T* o;          ///< (B,T,H,Dv)
  float* sum;    ///< (B,T,H,Dv): not yet divided sums, in o itself when it is f32
  float *m, *l;  ///< (B,T,H) (B,T,H): base-2 maxima, sums of p
  const T* q;
};

/// keys[i]: how many keys of block j query t[i] sees
HWY_INLINE void count_visible(const BranchDims& dims, std::int64_t j, const std::int32_t* t, std::int64_t nq,
                              std::int32_t* keys) {
  for (std::int64_t i = 0; i < nq; ++i)
    keys[i] = static_cast<std::int32_t>(std::clamp<std::int64_t>(t[i] + 1 - j * dims.block, 0, dims.keys_in(j)));
}

/// The same of queries that follow each other.
HWY_INLINE void count_visible(const BranchDims& dims, std::int64_t j, std::int64_t t0, std::int64_t nq,
                              std::int32_t* keys) {
  for (std::int64_t i = 0; i < nq; ++i)
    keys[i] = static_cast<std::int32_t>(std::clamp<std::int64_t>(t0 + i + 1 - j * dims.block, 0, dims.keys_in(j)));
}

/// nq queries t against block j
template <class Tiles, class T>
HWY_NOINLINE void forward_tile(const BranchDims& dims, const Tiles& tile, std::int64_t bh, std::int64_t j,
                               const std::int32_t* t, std::int64_t nq, const PackedKeys& packed,
                               const ForwardState<T>& x) {
  std::int32_t keys[BranchDims::kTileRows] = {};
  count_visible(dims, j, t, nq, keys);
  for (std::int64_t i = 0; i < nq; ++i) {
    const std::int64_t row = dims.row(bh, t[i]);
    load_query(dims, tile, i * dims.G, x.q, row);
    std::copy_n(x.m + row, dims.G, tile.m + i * dims.G);
    std::copy_n(x.l + row, dims.G, tile.l + i * dims.G);
    for (std::int64_t g = 0; g < dims.G; ++g)
      copy_scaled<false>(tile.o + (i * dims.G + g) * dims.ldv, x.sum + (row + g) * dims.Dv, dims.Dv, dims.Dvp, 1.0f);
  }
  forward_block(dims, tile, nq, keys, packed, packed.at(dims, bh, j));
  for (std::int64_t i = 0; i < nq; ++i) {
    const std::int64_t row = dims.row(bh, t[i]);
    std::copy_n(tile.m + i * dims.G, dims.G, x.m + row);
    std::copy_n(tile.l + i * dims.G, dims.G, x.l + row);
    for (std::int64_t g = 0; g < dims.G; ++g)
      std::copy_n(tile.o + (i * dims.G + g) * dims.ldv, dims.Dv, x.sum + (row + g) * dims.Dv);
  }
}

template <class Tiles, class T>
HWY_NOINLINE void forward_segment(const BranchDims& dims, const Tiles& tile, std::int64_t bh, std::int64_t s,
                                  const InverseIndex& index, const PackedKeys& packed, const ForwardState<T>& x) {
  const std::int64_t t0 = index.segments.begin(s), t1 = index.segments.end(s, dims.T);
  bool all = true;
  for (std::int64_t j = 0; j * dims.block < t1; ++j) all = all && index.all_chose(bh, s, j, dims.block);
  if (all) {
    for (std::int64_t t = t0; t < t1; t += dims.queries) {
      const std::int64_t nq = std::min(dims.queries, t1 - t);
      forward_walk(
          dims, tile, bh, t, nq, [&](std::int64_t j, std::int32_t* keys) { count_visible(dims, j, t, nq, keys); },
          packed, x.o, x.m, x.q);
    }
    return;
  }
  for (std::int64_t t = t0; t < t1; ++t) {
    const std::int64_t row = dims.row(bh, t);
    std::fill_n(x.sum + row * dims.Dv, dims.G * dims.Dv, 0.0f);
    std::fill_n(x.m + row, dims.G, -kInfinity);
    std::fill_n(x.l + row, dims.G, 0.0f);
  }
  for (std::int64_t j = 0; j * dims.block < t1; ++j) {
    const auto [t, size] = index.list(bh, s, j);
    for (std::int64_t i = 0; i < size; i += dims.queries)
      forward_tile(dims, tile, bh, j, t + i, std::min(dims.queries, size - i), packed, x);
  }
  for (std::int64_t t = t0; t < t1; ++t)
    for (std::int64_t row = dims.row(bh, t), end = row + dims.G; row < end; ++row)
      finish_row(x.o + row * dims.Dv, x.m + row, x.sum + row * dims.Dv, dims.Dv, x.m[row], x.l[row]);
}

template <class Tiles, class T>
void forward(Device& dev, Out o, Saved lse, In q, In k, In v, In selected, const NsaShape& geometry) {
  const BranchDims dims(q, k, v.dim(3), geometry.l_sel);
  ArenaScope scope(dev.work);
  const PackedKeys packed(dev, dims, {.kt = true, .v = true}, Tiles::kPairs);
  const InverseIndex index(dev, dims, selected.dim(3));
  const Tensor l = dev.scratch({dims.B, dims.T, dims.H}), sum = sum_of(dev, o);
  const Tensor scratch = dev.scratch({dev.threads, Tiles::forward(dims, nullptr).take.size});
  if (dev.planning()) return;
  pack_keys<Tiles>(dev, dims, packed, k.raw<T>(), v.raw<T>());
  const ForwardState<T> x{o.raw<T>(), sum.raw<float>(), lse.raw<float>(), l.raw<float>(), q.raw<T>()};
  parallel_for(dev.threads, dims.groups() * index.segments.count, [&](std::int64_t i, int thread) HWY_ATTR {
    const std::int64_t bh = i % dims.groups(), s = index.segments.count - 1 - i / dims.groups();  // longest first
    index.build_segment(bh, s, selected.raw<std::int32_t>());
    forward_segment(dims, Tiles::forward(dims, scratch.raw<float>() + thread * scratch.dim(1)), bh, s, index, packed,
                    x);
  });
}

template <class T>
struct BackwardState {
  QueryGradients<T, float> x;
  float* sums;  ///< per (group, block): dk (block,ldk), dv (block,ldv)

  std::pair<float*, float*> of(const BranchDims& dims, std::int64_t bh, std::int64_t j) const {
    float* dk = sums + (bh * dims.blocks + j) * dims.block * (dims.ldk + dims.ldv);
    return {dk, dk + dims.block * dims.ldk};
  }
};

template <class Tiles, class T>
HWY_NOINLINE void backward_tile(const BranchDims& dims, const Tiles& tile, std::int64_t bh, std::int64_t j,
                                const std::int32_t* t, std::int64_t nq, const PackedKeys& packed,
                                const BackwardState<T>& state) {
  const QueryGradients<T, float>& x = state.x;
  std::int32_t keys[BranchDims::kTileRows] = {};
  count_visible(dims, j, t, nq, keys);
  for (std::int64_t i = 0; i < nq; ++i) load_query_backward(dims, tile, i * dims.G, x, dims.row(bh, t[i]));
  const auto [dk, dv] = state.of(dims, bh, j);
  tile.all_loaded(dims, nq * dims.G);
  tile.backward_block(dims, nq, keys, packed, packed.at(dims, bh, j), dk, dv);
  for (std::int64_t i = 0; i < nq; ++i) store_dq<true>(dims, tile, i * dims.G, x.dq, dims.row(bh, t[i]));
}

/// Queries of segment s against the blocks of segment c
template <class Tiles, class T>
HWY_NOINLINE void backward_piece(const BranchDims& dims, const Tiles& tile, std::int64_t bh, std::int64_t s,
                                 std::int64_t c, const InverseIndex& index, const PackedKeys& packed,
                                 const BackwardState<T>& x) {
  const std::int64_t j0 = c * index.segments.blocks, j1 = std::min(dims.blocks, j0 + index.segments.blocks),
                     t1 = index.segments.end(s, dims.T);
  bool all = true;
  for (std::int64_t j = j0; j < j1; ++j) all = all && index.all_chose(bh, s, j, dims.block);
  if (all) {
    for (std::int64_t t = index.segments.begin(s); t < t1; t += dims.queries) {
      const std::int64_t nq = std::min(dims.queries, t1 - t);
      backward_walk<true>(
          dims, tile, bh, t, nq, j0, j1,
          [&](std::int64_t j, std::int32_t* keys) { count_visible(dims, j, t, nq, keys); }, packed, x.x,
          [&](std::int64_t j) { return x.of(dims, bh, j); });
    }
    return;
  }
  for (std::int64_t j = j0; j < j1; ++j) {
    const auto [t, size] = index.list(bh, s, j);
    for (std::int64_t i = 0; i < size; i += dims.queries)
      backward_tile(dims, tile, bh, j, t + i, std::min(dims.queries, size - i), packed, x);
  }
}

/// The pieces (s, c), c <= s, in sets e = (s + c) mod odd: set by set, each from its diagonal on, where the heaviest
/// piece is.
struct PieceOrder {
  std::int64_t segments, odd;
  explicit PieceOrder(std::int64_t segments_) : segments(segments_), odd(segments_ | 1) {}

  struct Piece {
    std::int64_t s, c;
    std::int32_t before_s, before_c;  ///< pieces of earlier sets with the same s, with the same c
  };
  bool exists(std::int64_t s, std::int64_t c) const { return s < segments && c <= s; }
  /// The k-th pair of set e; false when there is no such piece.
  bool at(std::int64_t e, std::int64_t k, Piece& piece) const {
    const std::int64_t s = (e * (odd + 1) / 2 + k) % odd, c = other(e, s);
    if (!exists(s, c)) return false;
    piece = {s, c, 0, 0};
    for (std::int64_t earlier = 0; earlier < e; ++earlier)
      piece.before_s += exists(s, other(earlier, s)), piece.before_c += exists(other(earlier, c), c);
    return true;
  }

 private:
  std::int64_t other(std::int64_t e, std::int64_t segment) const { return (e - segment + odd) % odd; }
};

/// dq (B*T, H*Dk) = [dq +] its sums, rounded once.
void round_dq(const Device& dev, const BranchDims& dims, bf16* dq, const float* sum, Write mode) {
  const std::int64_t n = dims.H * dims.Dk;
  parallel_for(dev.threads, dims.B * dims.T, [&](std::int64_t i, int) HWY_ATTR {
    if (mode == Write::add)
      copy_scaled<true>(dq + i * n, sum + i * n, n, n, 1.0f);
    else
      copy_scaled<false>(dq + i * n, sum + i * n, n, n, 1.0f);
  });
}

template <class Tiles, class T>
void backward(Device& dev, Out dq, Out dk, Out dv, In d_o, In delta, In lse, In q, In k, In v, In selected,
              const NsaShape& geometry, Write dq_mode) {
  const BranchDims dims(q, k, v.dim(3), geometry.l_sel);
  ArenaScope scope(dev.work);
  const PackedKeys packed(dev, dims, {.kt = true, .k = true, .vt = true}, Tiles::kPairs);
  const InverseIndex index(dev, dims, selected.dim(3));
  const Tensor sums = dev.scratch({dims.groups() * dims.blocks, dims.block * (dims.ldk + dims.ldv)});
  const Tensor scratch = dev.scratch({dev.threads, Tiles::backward(dims, nullptr).take.size});
  const Tensor dq_sum = sum_of(dev, dq);
  const std::int64_t segments = index.segments.count;
  const Tensor turns =
      dev.scratch({2, dims.groups(), segments}, DType::i32);  // pieces done with these queries, with these keys
  if (dev.planning()) return;
  std::fill_n(turns.raw<std::int32_t>(), turns.numel(), 0);
  pack_keys<Tiles>(dev, dims, packed, k.raw<T>(), v.raw<T>());
  parallel_for(dev.threads, dims.groups() * segments, [&](std::int64_t i, int) HWY_ATTR {
    index.build_segment(i / segments, i % segments, selected.raw<std::int32_t>());
  });
  parallel_for(dev.threads, sums.dim(0), [&](std::int64_t i, int) HWY_ATTR {
    std::fill_n(sums.raw<float>() + i * sums.dim(1), sums.dim(1), 0.0f);
  });
  if (dq.dtype != DType::f32 || dq_mode == Write::overwrite) {
    const std::int64_t size = dims.H * dims.Dk;
    parallel_for(dev.threads, dims.B * dims.T,
                 [&](std::int64_t i, int) HWY_ATTR { std::fill_n(dq_sum.raw<float>() + i * size, size, 0.0f); });
  }
  const BackwardState<T> x{{dq_sum.raw<float>(), d_o.raw<T>(), delta.raw<float>(), lse.raw<float>(), q.raw<T>()},
                           sums.raw<float>()};
  const PieceOrder order(segments);
  parallel_in_order(dev.threads, order.odd * order.odd * dims.groups(), [&](std::int64_t i, int thread) HWY_ATTR {
    const std::int64_t bh = i % dims.groups(), ek = i / dims.groups();
    PieceOrder::Piece piece;
    if (!order.at(ek / order.odd, ek % order.odd, piece)) return;
    std::int32_t& turn_s = turns.raw<std::int32_t>()[bh * segments + piece.s];
    std::int32_t& turn_c = turns.raw<std::int32_t>()[(dims.groups() + bh) * segments + piece.c];
    wait_for(turn_s, piece.before_s);
    wait_for(turn_c, piece.before_c);
    backward_piece(dims, Tiles::backward(dims, scratch.raw<float>() + thread * scratch.dim(1)), bh, piece.s, piece.c,
                   index, packed, x);
    pass_turn(turn_s, piece.before_s + 1);
    pass_turn(turn_c, piece.before_c + 1);
  });
  parallel_for(dev.threads, dims.groups() * dims.blocks, [&](std::int64_t i, int) HWY_ATTR {
    const float* dk_block = sums.raw<float>() + i * sums.dim(1);
    store_dkv<Tiles>(dims, i / dims.blocks, i % dims.blocks, dk.raw<T>(), dv.raw<T>(), dk_block,
                     dk_block + dims.block * dims.ldk);
  });
  if (dq.dtype == DType::bf16) round_dq(dev, dims, dq.raw<bf16>(), dq_sum.raw<float>(), dq_mode);
}

}  // namespace

void attend_selected_forward(Device& dev, Out o, Saved lse, In q, In k, In v, In selected, const NsaShape& geometry) {
  dispatch_tiles(q.dtype, [&]<class Tiles, class T>() { forward<Tiles, T>(dev, o, lse, q, k, v, selected, geometry); });
}

void attend_selected_backward(Device& dev, Out dq, Out dk, Out dv, In d_o, In delta, In lse, In q, In k, In v,
                              In selected, const NsaShape& geometry, Write dq_mode) {
  dispatch_tiles(q.dtype, [&]<class Tiles, class T>() {
    backward<Tiles, T>(dev, dq, dk, dv, d_o, delta, lse, q, k, v, selected, geometry, dq_mode);
  });
}

}  // namespace HWY_NAMESPACE
}  // namespace nsa
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace nsa::cpu {

HWY_EXPORT(attend_selected_forward);
HWY_EXPORT(attend_selected_backward);

void attend_selected_forward(Device& dev, Out o, Saved lse, In q, In k, In v, In selected, const NsaShape& geometry) {
  HWY_DYNAMIC_DISPATCH(attend_selected_forward)(dev, o, lse, q, k, v, selected, geometry);
}

void attend_selected_backward(Device& dev, Out dq, Out dk, Out dv, In d_o, In delta, In lse, In q, In k, In v,
                              In selected, const NsaShape& geometry, Write dq_mode) {
  HWY_DYNAMIC_DISPATCH(attend_selected_backward)
  (dev, dq, dk, dv, d_o, delta, lse, q, k, v, selected, geometry, dq_mode);
}

}  // namespace nsa::cpu
#endif
