// Block scores (Eq. 8-10) and selection (Eq. 11).
// Who does what: one tile of queries x G heads per piece of work. The tile's probabilities are recomputed from lse
// block by block and summed over the G heads
//   into a (queries, Tc) buffer; the shares of a select block are added from it; a tournament picks the n best.
// Bytes and FLOPs: 1 product of H * Tc * T/2 * Dk multiply-adds; scratch of a thread: a tile's queries x Tc. Nothing
// for queries that get every block. Assumes q and kc f32 or bf16 (all sums are float), d | l, d | l', l <= l', H
// a multiple of Hkv; Tc may be 0. Determinism: heads are added in order and every candidate's terms in the same order,
// so equal keys give equal scores, and the lower index wins.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "nsa/cpu/select.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "nsa/cpu/branch_bf16-inl.h"
#include "nsa/cpu/candidates.h"
#include "nsa/ops.h"

HWY_BEFORE_NAMESPACE();
namespace nsa {
namespace HWY_NAMESPACE {
namespace {

using cpu::Candidates;

constexpr std::int64_t kBlock = 64;       // compressed keys in a block
constexpr std::int64_t kMaxQueries = 32;  // bounds the buffer when G is small

struct ScoreDims {
  std::int64_t lead;     ///< zeros in front of p: a block's shares reach l/d - 1 compressed blocks back
  std::int64_t columns;  ///< row length of the buffer: lead + Tc, and what the last select block reads beyond
  std::int64_t queries;  ///< queries in a tile
  std::int64_t rows;     ///< queries * G
  std::int64_t candidates, groups;  ///< scores of a query, and of their groups of 16, rounded up

  ScoreDims(const BranchDims& dims, const NsaShape& geometry)
      : lead(BranchDims::padded(geometry.l / geometry.d)),
        columns(lead + std::max(dims.blocks * kBlock, geometry.blocks(dims.T) * (geometry.l_sel / geometry.d)) +
                kTileN),
        queries(std::min(dims.queries, kMaxQueries)),
        rows(queries * dims.G),
        candidates(round_up(geometry.blocks(dims.T), kTileN)),
        groups(round_up(candidates / kTileN, kTileN)) {}
};

/// Scratch of one thread. Without memory it only counts the floats.
template <class Tiles>
struct ScoreScratch {
  Tiles tile;                      ///< q and their logits
  float *lse2, *p, *score, *best;  ///< best: of each group of scores
  std::int32_t* index;
  std::int64_t floats;

  ScoreScratch(const BranchDims& dims, const ScoreDims& scores, const NsaShape& geometry, float* base)
      : tile(Tiles::scoring(dims, scores.rows, base)) {
    TakeTiles take = tile.take;
    lse2 = take(1, scores.rows), p = take(scores.queries, scores.columns);
    score = take(1, scores.candidates), best = take(1, scores.groups);
    index = reinterpret_cast<std::int32_t*>(take(1, geometry.n));
    floats = take.size;
  }
};

/// p (width) = sum over G rows of 2^(s - lse2), 0 from column `keys` on
HWY_INLINE void sum_heads(float* HWY_RESTRICT p, const float* HWY_RESTRICT s, std::int64_t lds, const float* lse2,
                          std::int64_t G, std::int64_t width, std::int64_t keys) {
  const TileTag d;
  const std::int64_t lanes = static_cast<std::int64_t>(hn::Lanes(d));
  std::int64_t c = 0;
  for (; c < keys; c += lanes) {
    TileVec sum = hn::Zero(d);
    for (std::int64_t g = 0; g < G; ++g)
      sum = hn::Add(sum, exp2_softmax(hn::Sub(load_visible(s + g * lds, c, keys), hn::Set(d, lse2[g]))));
    hn::StoreU(sum, d, p + c);
  }
  for (; c < width; c += lanes) hn::StoreU(hn::Zero(d), d, p + c);
}

/// score[j] = sum over m < ratio, r < reach of p[ratio j + m - r] for the free blocks first <= j < last, kTaken for
/// others up to a whole group. First the sum over r, in place, then over m.
constexpr float kTaken = -1.0f;  // below every score
HWY_INLINE void score_blocks(float* HWY_RESTRICT score, float* HWY_RESTRICT p, std::int64_t first, std::int64_t last,
                             std::int64_t ratio, std::int64_t reach) {
  const TileTag d;
  const std::int64_t lanes = static_cast<std::int64_t>(hn::Lanes(d));
  for (std::int64_t i = round_up(last * ratio, kTileN) - lanes; i >= 0;
       i -= lanes) {  // p[i - r] must still be the old one: downwards
    TileVec sum = hn::LoadU(d, p + i);
    for (std::int64_t r = 1; r < reach; ++r) sum = hn::Add(sum, hn::LoadU(d, p + i - r));
    hn::StoreU(sum, d, p + i);
  }
  std::fill_n(score, first, kTaken);
  for (std::int64_t j = first; j < last; ++j) {
    float sum = p[ratio * j];
    for (std::int64_t m = 1; m < ratio; ++m) sum += p[ratio * j + m];
    score[j] = sum >= 0 ? sum : 0;  // NaN of a diverged run: any valid block will do
  }
  std::fill(score + last, score + round_up(last, kTileN), kTaken);
}

HWY_INLINE float group_best(const float* group) {
  const TileTag d;
  const std::int64_t lanes = static_cast<std::int64_t>(hn::Lanes(d));
  TileVec best = hn::LoadU(d, group);
  for (std::int64_t i = lanes; i < kTileN; i += lanes) best = hn::Max(best, hn::LoadU(d, group + i));
  return hn::GetLane(hn::MaxOfLanes(d, best));
}
/// The first number that equals x; there is one.
HWY_INLINE std::int64_t find_first(const float* numbers, float x) {
  const TileTag d;
  const TileVec wanted = hn::Set(d, x);
  for (std::int64_t i = 0;; i += static_cast<std::int64_t>(hn::Lanes(d)))
    if (const auto found = hn::FindFirstTrue(d, hn::Eq(hn::LoadU(d, numbers + i), wanted)); found >= 0)
      return i + found;
}

/// The `count` best of the blocks with a score (>= 0), ties to the lower index, into index[0, count); there are at
/// least `count`. A tournament of groups of 16: no branch depends on the scores. Takes the scores away.
HWY_INLINE void keep_best(std::int32_t* index, float* score, float* best_of_group, std::int64_t groups,
                          std::int64_t count) {
  for (std::int64_t i = 0; i < round_up(groups, kTileN); ++i)
    best_of_group[i] = i < groups ? group_best(score + i * kTileN) : kTaken;
  for (std::int64_t k = 0; k < count; ++k) {
    float best = kTaken;
    for (std::int64_t i = 0; i < groups; i += kTileN) best = std::max(best, group_best(best_of_group + i));
    const std::int64_t group = find_first(best_of_group, best),
                       j = group * kTileN + find_first(score + group * kTileN, best);
    index[k] = static_cast<std::int32_t>(j);
    score[j] = kTaken;
    best_of_group[group] = group_best(score + group * kTileN);
  }
}

/// Ascending into selected (n), -1 at the end
HWY_INLINE void write_selected(std::int32_t* selected, const NsaShape& geometry, const Candidates& c,
                               std::int32_t* free, std::int64_t n_free) {
  std::int64_t n = 0;
  const auto put = [&](std::int64_t j) {
    if (n < geometry.n) selected[n++] = static_cast<std::int32_t>(j);
  };
  std::sort(free, free + n_free);
  for (std::int64_t j = 0; j < c.first_free; ++j) put(j);
  for (std::int64_t i = 0; i < n_free; ++i) put(free[i]);
  for (std::int64_t j = c.last_free; j <= c.current; ++j) put(j);
  std::fill(selected + n, selected + geometry.n, -1);
}

/// The rows of queries t0, ..., t0 + nq - 1, and their lse
template <class Tiles, class T>
void load_queries(const BranchDims& dims, const ScoreScratch<Tiles>& scratch, std::int64_t bh, std::int64_t t0,
                  std::int64_t nq, const T* q, const float* lse) {
  for (std::int64_t r = 0; r < nq * dims.G; ++r) {
    const std::int64_t row = dims.row(bh, t0 + r / dims.G) + r % dims.G;
    scratch.tile.load_query(dims, r, q + row * dims.Dk);
    scratch.lse2[r] = lse[row] * kLog2e;
  }
}

template <class Tiles>
HWY_NOINLINE void select_tile(const BranchDims& dims, const ScoreDims& scores, const ScoreScratch<Tiles>& scratch,
                              std::int64_t bh, std::int64_t t0, std::int64_t nq, const PackedKeys& packed,
                              std::int32_t* selected, const NsaShape& geometry) {
  const std::int64_t ratio = geometry.l_sel / geometry.d, visible = geometry.visible(t0 + nq - 1),
                     used = round_up((Candidates(geometry, t0 + nq - 1).current + 1) * ratio, kTileN);
  std::int64_t written = 0;
  for (; written < visible; written += kBlock) {
    const std::int64_t width = round_up(std::min(kBlock, visible - written), kTileN);
    scratch.tile.logits(dims, nq * dims.G, width, packed.at(dims, bh, written / kBlock));
    for (std::int64_t i = 0; i < nq; ++i) {
      const std::int64_t keys = std::clamp<std::int64_t>(geometry.visible(t0 + i) - written, 0, kBlock);
      sum_heads(scratch.p + i * scores.columns + scores.lead + written, scratch.tile.s + i * dims.G * dims.lds,
                dims.lds, scratch.lse2 + i * dims.G, dims.G, kBlock, keys);
    }
  }
  for (std::int64_t i = 0; i < nq; ++i) {
    const std::int64_t t = t0 + i;
    const Candidates c(geometry, t);
    std::int32_t* out = selected + (bh * dims.T + t) * geometry.n;
    float* p = scratch.p + i * scores.columns + scores.lead;
    std::fill(p - scores.lead, p, 0.0f);
    if (written < used) std::fill(p + written, p + used, 0.0f);
    const std::int64_t n_free = c.taken(geometry.n);
    score_blocks(scratch.score, p, c.first_free, c.last_free, ratio, geometry.l / geometry.d);
    keep_best(scratch.index, scratch.score, scratch.best, round_up(c.last_free, kTileN) / kTileN, n_free);
    write_selected(out, geometry, c, scratch.index, n_free);
  }
}

template <class Tiles, class T>
void select(Device& dev, Out selected, In q, In kc, In lse, const NsaShape& geometry) {
  const BranchDims dims(q, kc, 0, kBlock);
  const ScoreDims scores(dims, geometry);
  ArenaScope scope(dev.work);
  const PackedKeys packed(dev, dims, {.kt = true}, Tiles::kPairs);
  const Tensor memory = dev.scratch({dev.threads, ScoreScratch<Tiles>(dims, scores, geometry, nullptr).floats});
  if (dev.planning()) return;
  pack_keys<Tiles, T>(dev, dims, packed, kc.raw<T>(), nullptr);
  const std::int64_t scored_from = std::min(dims.T, geometry.n * geometry.l_sel),
                     tiles = (dims.T - scored_from + scores.queries - 1) / scores.queries;
  parallel_for(dev.threads, dims.groups() * tiles, [&](std::int64_t i, int thread) HWY_ATTR {
    const std::int64_t bh = i % dims.groups(),
                       t0 = scored_from + (tiles - 1 - i / dims.groups()) * scores.queries;  // longest first
    const std::int64_t nq = std::min(scores.queries, dims.T - t0);
    const ScoreScratch<Tiles> scratch(dims, scores, geometry, memory.raw<float>() + thread * memory.dim(1));
    load_queries(dims, scratch, bh, t0, nq, q.raw<T>(), lse.raw<float>());
    select_tile(dims, scores, scratch, bh, t0, nq, packed, selected.raw<std::int32_t>(), geometry);
  });
  parallel_for(dev.threads, dims.groups(), [&](std::int64_t bh, int) HWY_ATTR {
    for (std::int64_t t = 0; t < scored_from; ++t)
      for (std::int64_t i = 0; i < geometry.n; ++i)
        selected.raw<std::int32_t>()[(bh * dims.T + t) * geometry.n + i] =
            i <= t / geometry.l_sel ? static_cast<std::int32_t>(i) : -1;
  });
}

}  // namespace

void select_blocks(Device& dev, Out selected, In q, In kc, In lse, const NsaShape& geometry) {
  dispatch_tiles(q.dtype, [&]<class Tiles, class T>() { select<Tiles, T>(dev, selected, q, kc, lse, geometry); });
}

}  // namespace HWY_NAMESPACE
}  // namespace nsa
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace nsa::cpu {

HWY_EXPORT(select_blocks);

void select_blocks(Device& dev, Out selected, In q, In kc, In lse, const NsaShape& geometry) {
  HWY_DYNAMIC_DISPATCH(select_blocks)(dev, selected, q, kc, lse, geometry);
}

}  // namespace nsa::cpu
#endif
