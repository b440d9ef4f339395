// Are these the blocks float64 would choose? Where two candidates are closer than float32 can separate, either choice
// is right.
#pragma once

#include <string>

#include "model/nsa_attention.h"

namespace nsa {

struct SelectionResult {
  double wrong = 0;   ///< share of (b, kv head, t) rows whose blocks differ by more than a tie
  std::string worst;  ///< the first wrong row: where, got, expected
  std::string note;   ///< "exact", or how many rows differ by a tie
};

/// Compares s.selected with `want`, both (B,Hkv,T,n). Where they differ, scores (Eq. 9, 10) are computed in double from
/// s.q and s.kc.
SelectionResult compare_selection(const NsaAttention::Saved& s, In want, const NsaShape& geometry);

}  // namespace nsa
