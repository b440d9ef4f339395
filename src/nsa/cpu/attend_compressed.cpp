// Compression branch, forward and backward. Query t sees the compressed keys i < geometry.visible(t): a triangle that
// is d times narrower than the causal one. Who does what: forward, one tile of queries x G heads per piece of work,
// over the key blocks it sees; backward, tiles i, i + pieces, i + 2 pieces, ... per
//   piece, all five products of a (tile, block) pair at once, dkc and dvc into the piece's own copy; the copies are
//   added in index order at the end.
// Bytes and FLOPs: 2 (forward) / 5 (backward) products of H * Tc * T/2 * D multiply-adds; packed keys 2 / 3 times kc's
// size, the copies of dkc, dvc together
//   about k's and v's size at d = 16.
// Assumes H a multiple of Hkv; any other size works, padded to whole vectors in scratch. Tc may be 0.
// Determinism: pieces and the order of their sums depend on the shapes alone.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "nsa/cpu/attend_compressed.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "nsa/cpu/branch-inl.h"
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

HWY_NOINLINE void forward_tile(const BranchDims& z, const TileScratch& tile, std::int64_t bh, std::int64_t t0,
                               const PackedKeys& packed, float* o, float* lse, const float* q,
                               const NsaShape& geometry) {
  const std::int64_t nq = std::min(z.queries, z.T - t0);
  forward_walk(
      z, tile, bh, t0, nq, [&](std::int64_t j, std::int32_t* keys) { count_visible(geometry, j, t0, nq, keys); },
      packed, o, lse, q);
}

}  // namespace

void attend_compressed_forward(Device& dev, Out o, Saved lse, In q, In kc, In vc, const NsaShape& geometry) {
  const BranchDims z(q, kc, vc.dim(3), kBlock);
  ArenaScope scope(dev.work);
  const PackedKeys packed(dev, z, {.kt = true, .v = true});
  const Tensor scratch = dev.scratch({dev.threads, TileScratch::forward(z, nullptr).floats});
  if (dev.planning()) return;
  pack_keys(dev, z, packed, kc.raw<float>(), vc.raw<float>());
  parallel_for(dev.threads, z.groups() * z.tiles(), [&](std::int64_t i, int thread) HWY_ATTR {
    const std::int64_t bh = i % z.groups(), t0 = (z.tiles() - 1 - i / z.groups()) * z.queries;  // longest first
    forward_tile(z, TileScratch::forward(z, scratch.raw<float>() + thread * scratch.dim(1)), bh, t0, packed,
                 o.raw<float>(), lse.raw<float>(), q.raw<float>(), geometry);
  });
}

namespace {

/// dk (blocks * kBlock, ldk), dv (blocks * kBlock, ldv): the piece's own sums
template <bool kAddDq>
HWY_NOINLINE void backward_tile(const BranchDims& z, const TileScratch& tile, std::int64_t bh, std::int64_t t0,
                                const PackedKeys& packed, const QueryGradients& x, float* dk, float* dv,
                                const NsaShape& geometry) {
  const std::int64_t nq = std::min(z.queries, z.T - t0);
  backward_walk<kAddDq>(
      z, tile, bh, t0, nq, 0, z.blocks,
      [&](std::int64_t j, std::int32_t* keys) { count_visible(geometry, j, t0, nq, keys); }, packed, x,
      [&](std::int64_t j) { return std::pair(dk + j * kBlock * z.ldk, dv + j * kBlock * z.ldv); });
}

/// Adds the pieces' sums of block j into the first piece's, in order.
HWY_NOINLINE void add_pieces(float* first, std::int64_t size, std::int64_t pieces, std::int64_t stride) {
  for (std::int64_t i = 1; i < pieces; ++i) copy_scaled<true>(first, first + i * stride, size, size, 1.0f);
}

}  // namespace

void attend_compressed_backward(Device& dev, Out dq, Out dkc, Out dvc, In d_o, In delta, In lse, In q, In kc, In vc,
                                const NsaShape& geometry, Write dq_mode) {
  const BranchDims z(q, kc, vc.dim(3), kBlock);
  // Enough pieces for any number of threads, few enough that their copies stay below k's and v's size at d = 16.
  const std::int64_t pieces = std::min(z.tiles(), std::clamp<std::int64_t>(64 / z.groups(), 2, 16));
  const std::int64_t size_k = z.blocks * kBlock * z.ldk, size_v = z.blocks * kBlock * z.ldv, size = size_k + size_v;
  ArenaScope scope(dev.work);
  const PackedKeys packed(dev, z, {.kt = true, .k = true, .vt = true});
  const Tensor scratch = dev.scratch({dev.threads, TileScratch::backward(z, nullptr).floats});
  const Tensor sums = dev.scratch({z.groups() * pieces, size});
  if (dev.planning()) return;
  pack_keys(dev, z, packed, kc.raw<float>(), vc.raw<float>());
  const QueryGradients x{dq.raw<float>(), d_o.raw<float>(), delta.raw<float>(), lse.raw<float>(), q.raw<float>()};
  const auto backward = dq_mode == Write::add ? backward_tile<true> : backward_tile<false>;
  parallel_for(dev.threads, z.groups() * pieces, [&](std::int64_t i, int thread) HWY_ATTR {
    float *dk = sums.raw<float>() + i * size, *dv = dk + size_k;
    std::fill_n(dk, size, 0.0f);
    const TileScratch tile = TileScratch::backward(z, scratch.raw<float>() + thread * scratch.dim(1));
    for (std::int64_t k = z.tiles() - 1 - i % pieces; k >= 0; k -= pieces)
      backward(z, tile, i / pieces, k * z.queries, packed, x, dk, dv, geometry);
  });
  parallel_for(dev.threads, z.groups() * z.blocks, [&](std::int64_t i, int) HWY_ATTR {
    const std::int64_t bh = i / z.blocks, j = i % z.blocks;
    float* dk = sums.raw<float>() + bh * pieces * size + j * kBlock * z.ldk;
    float* dv = sums.raw<float>() + bh * pieces * size + size_k + j * kBlock * z.ldv;
    add_pieces(dk, kBlock * z.ldk, pieces, size);
    add_pieces(dv, kBlock * z.ldv, pieces, size);
    store_dkv(z, bh, j, dkc.raw<float>(), dvc.raw<float>(), dk, dv);
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
