// Native Sparse Attention (arXiv 2502.11089): the geometry the NSA ops share. Equations are the paper's.
//
//   cmp  branch: softmax over compressed blocks i with i*d + l - 1 <= t          (Eq. 7)
//   score[t, j]: sum over the group's heads and over m < l'/d, r < l/d of p_cmp[t, (l'/d) j + m - r]   (Eq. 9, 10;
//   0-based: minus m would be a neighbour) slc  branch: softmax over the tokens s <= t of the n chosen blocks (Eq. 11,
//   12) win  branch: softmax over s in [t-w+1, t] o = sum_b sigmoid(x Wg)_b o_b (Eq. 5)
#pragma once

#include <cstdint>

namespace nsa {

struct NsaShape {
  std::int64_t l = 32, d = 16;       ///< compress_block, compress_stride; d | l
  std::int64_t l_sel = 64, n = 16;   ///< l' select_block (d | l', l <= l'), select_count
  std::int64_t init = 1, local = 2;  ///< forced blocks at the start and up to the current one
  std::int64_t w = 512;              ///< window

  /// Number of compressed blocks of T tokens; 0 when T < l. An incomplete trailing block does not exist.
  std::int64_t Tc(std::int64_t T) const { return T < l ? 0 : (T - l) / d + 1; }
  /// Number of compressed blocks query t sees: those with i*d + l - 1 <= t.
  std::int64_t visible(std::int64_t t) const { return t + 1 < l ? 0 : (t + 1 - l) / d + 1; }
  /// Number of select blocks of T tokens, the last may be incomplete.
  std::int64_t blocks(std::int64_t T) const { return (T + l_sel - 1) / l_sel; }
};

}  // namespace nsa
