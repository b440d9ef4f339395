// Useful FLOPs (a multiply-add counts 2), the numerator of every "share of peak" here. Per token: 2 per matrix weight
// forward, 4 backward; attention counts the keys a query really sees; nothing for recomputation, norms, softmax or the
// score pass that only selects. docs/flops.md has the formulae.
#pragma once

#include <cstdint>

#include "model/config.h"

namespace nsa {

struct Flops {
  double matrices = 0;   ///< per token, forward: projections, feed-forward, head, compressor
  double attention = 0;  ///< per token, forward, mean over a sequence of T
  double forward() const { return matrices + attention; }
  double training() const { return 3 * forward(); }
};

/// Mean per token of a sequence of T tokens.
Flops flops_per_token(const ModelConfig& config, std::int64_t T);

/// Query-key pairs of one head and one sequence: full causal (window 0) or windowed.
double attention_pairs(std::int64_t T, std::int64_t window);
/// The same for the compression and the selected branch (the selected branch's last block counts only tokens <= t).
double compressed_pairs(std::int64_t T, const NsaShape& geometry);
double selected_pairs(std::int64_t T, const NsaShape& geometry);

}  // namespace nsa
