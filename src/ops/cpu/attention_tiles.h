// How attention is cut into tiles, forward and backward alike. No SIMD here: compiled once.
//
// The G query heads of a kv head see the same keys, so a unit (b, kv head) has T*G query *rows* n = t*G + g, and a tile
// is kTileRows consecutive rows: any G fills it, and a K/V block loaded once serves all heads. Keys come in blocks of
// key_block on a fixed grid. Inside a tile rows are *columns* (scores are kept transposed, keys x rows): a softmax then
// runs down columns without horizontal sums, and K and V are used as they lie in memory.
#pragma once

#include <algorithm>
#include <cstdint>

#include "core/tensor.h"
#include "ops/cpu/onednn_gemm.h"

namespace nsa::cpu {

constexpr std::int64_t kTileRows =
    192;  // a multiple of 6 and of 64: whole register blocks on AVX2 and AVX-512; with 96 it is 6 % of the peak slower
constexpr std::int64_t kKeyBlock = 96;
constexpr std::int64_t kPairsKeyBlock = 192;  // in bf16, where keys and probabilities take half the room
constexpr std::int64_t kKeyStep =
    32;  // finer steps where the mask cuts, so that little of what is computed is thrown away

/// Keys [s0, s1) against columns [c0, c1) of a tile; c0 and c1 are multiples of 16. Columns outside see none of these
/// keys.
struct KeyRange {
  std::int64_t s0, s1, c0, c1;
  bool masked;  ///< some of the columns inside do not see some of the keys
};

struct AttentionShape {
  std::int64_t B, T, H, Hkv, G, Dk, Dv;
  std::int64_t window;     ///< keys a query sees, itself included; T when there is no window
  bool pairs;              ///< products of bf16 pairs (tile_bf16-inl.h); else floats
  std::int64_t key_block;  ///< keys in a block

  AttentionShape(In q, In k, In v, std::int64_t w)
      : B(q.dim(0)),
        T(q.dim(1)),
        H(q.dim(2)),
        Hkv(k.dim(2)),
        G(H / Hkv),
        Dk(q.dim(3)),
        Dv(v.dim(3)),
        window(w > 0 ? std::min(w, T) : T),
        pairs(q.dtype == DType::bf16 && native_bf16()),
        key_block(pairs ? kPairsKeyBlock : kKeyBlock) {}

  std::int64_t units() const { return B * Hkv; }
  std::int64_t tiles() const { return (T * G + kTileRows - 1) / kTileRows; }
  std::int64_t key_blocks() const { return (T + key_block - 1) / key_block; }
  /// Row of q, o (B*T*H) that is query row n of a unit, and row of k, v (B*T*Hkv) that is key s.
  std::int64_t query_row(std::int64_t unit, std::int64_t n) const {
    return (unit / Hkv * T + n / G) * H + unit % Hkv * G + n % G;
  }
  std::int64_t key_row(std::int64_t unit, std::int64_t s) const { return (unit / Hkv * T + s) * Hkv + unit % Hkv; }
  /// The last and the first tile that see keys of a block.
  std::int64_t last_tile_of(std::int64_t block) const {
    return std::min(tiles() - 1, (((block + 1) * key_block + window - 1) * G - 1) / kTileRows);
  }
  std::int64_t first_tile_of(std::int64_t block) const { return block * key_block * G / kTileRows; }
};

/// Query rows [n0, n0 + rows) of a unit and the keys [key_begin, key_end) that at least one of them sees.
struct RowTile {
  std::int64_t unit, n0, rows, t_first, t_last, key_begin, key_end, G, window, key_block;
  bool pairs;

  RowTile(const AttentionShape& a, std::int64_t unit_, std::int64_t tile)
      : unit(unit_),
        n0(tile * kTileRows),
        rows(std::min(kTileRows, a.T * a.G - n0)),
        t_first(n0 / a.G),
        t_last((n0 + rows - 1) / a.G),
        key_begin(std::max<std::int64_t>(0, t_first - a.window + 1)),
        key_end(t_last + 1),
        G(a.G),
        window(a.window),
        key_block(a.key_block),
        pairs(a.pairs) {}

  /// Columns rounded up to whole vectors; those beyond `rows` hold zeros.
  std::int64_t columns() const { return (rows + 15) / 16 * 16; }

  /// The keys from s0 on that are handled together: to the end of the block, or a short step where the mask cuts the
  /// block.
  KeyRange keys_from(std::int64_t s0) const {
    std::int64_t s1 = std::min(key_end, (s0 / key_block + 1) * key_block);
    if (all_see(s0, s1)) return {s0, s1, 0, columns(), false};
    if (pairs && all_see(s0, (s0 / kKeyStep + 1) * kKeyStep))  // floats keep the sums of one step, and so their bits
      return {s0, (t_first + 1) / kKeyStep * kKeyStep, 0, columns(), false};
    s1 = std::min(s1, (s0 / kKeyStep + 1) * kKeyStep);
    const std::int64_t c0 = std::max<std::int64_t>(0, s0 * G - n0) / 16 * 16;  // row n sees s0 when n / G >= s0
    const std::int64_t c1 =
        std::min(columns(), ((s1 + window - 1) * G - n0 + 15) / 16 * 16);  // and s1 - 1 when n / G < s1 - 1 + window
    return {s0, s1, c0, c1, !all_see(s0, s1)};
  }

 private:
  bool all_see(std::int64_t s0, std::int64_t s1) const { return s1 - 1 <= t_first && s0 >= t_last - window + 1; }
};

/// T: the element type of all but lse, delta and the sums.
template <class T>
struct ForwardArgs {
  AttentionShape shape;
  T* o;
  float* lse;
  const T *q, *k, *v;
};

/// Where dk or dv is summed up: the output (B,T,Hkv,D), or scratch when that is no float or its rows not a whole number
/// of vectors. Scratch is (B,Hkv,T,width): a head's rows lie together, not in the few cache sets that a power of two
/// between them leaves.
struct KeySum {
  float* data;
  std::int64_t width;
  std::int64_t step;  ///< floats from a key's row to the next one's
  float* row(const AttentionShape& a, std::int64_t unit, std::int64_t s) const {
    return data + (step == width ? unit * a.T + s : a.key_row(unit, s)) * width;
  }
};

template <class T>
struct BackwardArgs {
  AttentionShape shape;
  T* dq;
  Write dq_mode;
  T *dk, *dv;  ///< outputs (B,T,Hkv,Dk), (B,T,Hkv,Dv)
  KeySum dk_sum, dv_sum;
  const T* d_o;
  const float *delta, *lse;
  const T *q, *k, *v;
  std::int32_t* turns;  ///< (units, key_blocks): how many tiles have added to dk and dv of a key block
};

}  // namespace nsa::cpu
