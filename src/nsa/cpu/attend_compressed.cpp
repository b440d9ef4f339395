// Compression branch, forward and backward. Query t sees the compressed keys i < geometry.visible(t): a triangle that
// is d times narrower than the causal one. Who does what: forward, one tile of queries x G heads per piece of work,
// over the key blocks it sees; backward, tiles i, i + pieces, i + 2 pieces, ... per
//   piece, all five products of a (tile, block) pair at once, dkc and dvc into the piece's own copy; the copies are
//   added in index order at the end.
// Bytes and FLOPs: 2 (forward) / 5 (backward) products of H * Tc * T/2 * D multiply-adds; packed keys 2 / 3 times kc's
// size, the copies of dkc, dvc together
//   about k's and v's size at d = 16.
// Assumes f32 or bf16, H a multiple of Hkv; any other size works, padded to whole vectors in scratch. Tc may be 0. In
// bf16, where the CPU multiplies it (branch_bf16-inl.h), P and dS are rounded to bf16; elsewhere it is widened into the
// tiles and packed keys. Sums are float, each result is rounded once.
// Determinism: pieces and the order of their sums depend on the shapes alone.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "nsa/cpu/attend_compressed.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "nsa/cpu/branch_bf16-inl.h"
#include "nsa/ops.h"

HWY_BEFORE_NAMESPACE();
namespace nsa {
namespace HWY_NAMESPACE {
namespace {

// Keys in a block: a tile's logits (96 x 64) then stay in the first cache level. d times fewer keys than tokens, so
// this is not l'.
constexpr std::int64_t kBlock = 64;

/// keys[i]: how many keys of block j query t0 + i sees
HWY_INLINE void count_visible(const NsaShape& geometry, std::int64_t j, std::int64_t t0, std::int64_t nq,
                              std::int32_t* keys) {
  for (std::int64_t i = 0; i < nq; ++i)
    keys[i] = static_cast<std::int32_t>(std::clamp<std::int64_t>(geometry.visible(t0 + i) - j * kBlock, 0, kBlock));
}

template <class Tiles, class T>
HWY_NOINLINE void forward_tile(const BranchDims& dims, const Tiles& tile, std::int64_t bh, std::int64_t t0,
                               const PackedKeys& packed, T* o, float* lse, const T* q, const NsaShape& geometry) {
  const std::int64_t nq = std::min(dims.queries, dims.T - t0);
  forward_walk(
      dims, tile, bh, t0, nq, [&](std::int64_t j, std::int32_t* keys) { count_visible(geometry, j, t0, nq, keys); },
      packed, o, lse, q);
}

template <class Tiles, class T>
void forward(Device& dev, Out o, Saved lse, In q, In kc, In vc, const NsaShape& geometry) {
  const BranchDims dims(q, kc, vc.dim(3), kBlock);
  ArenaScope scope(dev.work);
  const PackedKeys packed(dev, dims, {.kt = true, .v = true}, Tiles::kPairs);
  const Tensor scratch = dev.scratch({dev.threads, Tiles::forward(dims, nullptr).take.size});
  if (dev.planning()) return;
  pack_keys<Tiles>(dev, dims, packed, kc.raw<T>(), vc.raw<T>());
  parallel_for(dev.threads, dims.groups() * dims.tiles(), [&](std::int64_t i, int thread) HWY_ATTR {
    const std::int64_t bh = i % dims.groups(),
                       t0 = (dims.tiles() - 1 - i / dims.groups()) * dims.queries;  // longest first
    forward_tile(dims, Tiles::forward(dims, scratch.raw<float>() + thread * scratch.dim(1)), bh, t0, packed, o.raw<T>(),
                 lse.raw<float>(), q.raw<T>(), geometry);
  });
}

/// dk (blocks * kBlock, ldk), dv (blocks * kBlock, ldv): the piece's own sums
template <bool kAddDq, class Tiles, class T>
HWY_NOINLINE void backward_tile(const BranchDims& dims, const Tiles& tile, std::int64_t bh, std::int64_t t0,
                                const PackedKeys& packed, const QueryGradients<T, T>& x, float* dk, float* dv,
                                const NsaShape& geometry) {
  const std::int64_t nq = std::min(dims.queries, dims.T - t0);
  backward_walk<kAddDq>(
      dims, tile, bh, t0, nq, 0, dims.blocks,
      [&](std::int64_t j, std::int32_t* keys) { count_visible(geometry, j, t0, nq, keys); }, packed, x,
      [&](std::int64_t j) { return std::pair(dk + j * kBlock * dims.ldk, dv + j * kBlock * dims.ldv); });
}

/// Adds the pieces' sums of block j into the first piece's, in order.
HWY_NOINLINE void add_pieces(float* first, std::int64_t size, std::int64_t pieces, std::int64_t stride) {
  for (std::int64_t i = 1; i < pieces; ++i) copy_scaled<true>(first, first + i * stride, size, size, 1.0f);
}

template <class Tiles, class T>
void backward(Device& dev, Out dq, Out dkc, Out dvc, In d_o, In delta, In lse, In q, In kc, In vc,
              const NsaShape& geometry, Write dq_mode) {
  const BranchDims dims(q, kc, vc.dim(3), kBlock);
  // Enough pieces for any number of threads, few enough that their copies stay below k's and v's size at d = 16.
  const std::int64_t pieces = std::min(dims.tiles(), std::clamp<std::int64_t>(64 / dims.groups(), 2, 16));
  const std::int64_t size_k = dims.blocks * kBlock * dims.ldk, size_v = dims.blocks * kBlock * dims.ldv,
                     size = size_k + size_v;
  ArenaScope scope(dev.work);
  const PackedKeys packed(dev, dims, {.kt = true, .k = true, .vt = true}, Tiles::kPairs);
  const Tensor scratch = dev.scratch({dev.threads, Tiles::backward(dims, nullptr).take.size});
  const Tensor sums = dev.scratch({dims.groups() * pieces, size});
  if (dev.planning()) return;
  pack_keys<Tiles>(dev, dims, packed, kc.raw<T>(), vc.raw<T>());
  const QueryGradients<T, T> x{dq.raw<T>(), d_o.raw<T>(), delta.raw<float>(), lse.raw<float>(), q.raw<T>()};
  const auto add_tile = dq_mode == Write::add ? backward_tile<true, Tiles, T> : backward_tile<false, Tiles, T>;
  parallel_for(dev.threads, dims.groups() * pieces, [&](std::int64_t i, int thread) HWY_ATTR {
    float *dk = sums.raw<float>() + i * size, *dv = dk + size_k;
    std::fill_n(dk, size, 0.0f);
    const Tiles tile = Tiles::backward(dims, scratch.raw<float>() + thread * scratch.dim(1));
    for (std::int64_t k = dims.tiles() - 1 - i % pieces; k >= 0; k -= pieces)
      add_tile(dims, tile, i / pieces, k * dims.queries, packed, x, dk, dv, geometry);
  });
  parallel_for(dev.threads, dims.groups() * dims.blocks, [&](std::int64_t i, int) HWY_ATTR {
    const std::int64_t bh = i / dims.blocks, j = i % dims.blocks;
    float* dk = sums.raw<float>() + bh * pieces * size + j * kBlock * dims.ldk;
    float* dv = sums.raw<float>() + bh * pieces * size + size_k + j * kBlock * dims.ldv;
    add_pieces(dk, kBlock * dims.ldk, pieces, size);
    add_pieces(dv, kBlock * dims.ldv, pieces, size);
    store_dkv<Tiles>(dims, bh, j, dkc.raw<T>(), dvc.raw<T>(), dk, dv);
  });
}

}  // namespace

void attend_compressed_forward(Device& dev, Out o, Saved lse, In q, In kc, In vc, const NsaShape& geometry) {
  dispatch_tiles(q.dtype, [&]<class Tiles, class T>() { forward<Tiles, T>(dev, o, lse, q, kc, vc, geometry); });
}

void attend_compressed_backward(Device& dev, Out dq, Out dkc, Out dvc, In d_o, In delta, In lse, In q, In kc, In vc,
                                const NsaShape& geometry, Write dq_mode) {
  dispatch_tiles(q.dtype, [&]<class Tiles, class T>() {
    backward<Tiles, T>(dev, dq, dkc, dvc, d_o, delta, lse, q, kc, vc, geometry, dq_mode);
  });
}

}  // namespace HWY_NAMESPACE
}  // namespace nsa
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace nsa::cpu {

HWY_EXPORT(attend_compressed_forward);
HWY_EXPORT(attend_compressed_backward);

void attend_compressed_forward(Device& dev, Out o, Saved lse, In q, In kc, In vc, const NsaShape& geometry) {
  HWY_DYNAMIC_DISPATCH(attend_compressed_forward)(dev, o, lse, q, kc, vc, geometry);
}

void attend_compressed_backward(Device& dev, Out dq, Out dkc, Out dvc, In d_o, In delta, In lse, In q, In kc, In vc,
                                const NsaShape& geometry, Write dq_mode) {
  HWY_DYNAMIC_DISPATCH(attend_compressed_backward)(dev, dq, dkc, dvc, d_o, delta, lse, q, kc, vc, geometry, dq_mode);
}

}  // namespace nsa::cpu
#endif
