// In what unit the losses of several runs may be held against each other. Where tokenizers differ, a nat per token of
// one is not a nat per token of the other: a tokenizer of longer pieces has a higher loss for the same text.
#pragma once

#include <vector>

#include "report/series.h"

namespace nsa::report {

enum class Measure {
  nats_per_token,  ///< all runs have the same tokens, as far as is known
  bits_per_byte,   ///< they differ, and runs of two groups at least know their bytes of text
  none,            ///< they differ, and their losses cannot be compared
};
const char* unit_of(Measure measure);  ///< "nats per token", "bits per byte"

/// Do both have the same tokens? By the tokenizers' hashes; where one is missing, by data.tokenizer and
/// model.vocab_size as far as both name them (then a padded vocabulary counts as another one).
bool same_tokens(const Provenance& a, const Provenance& b);
/// Bytes of text per token: of the training text, or else as the last validation tells; NaN when neither does.
double bytes_per_token(const History& run);

Measure common_measure(const std::vector<History>& runs);
/// Turns losses of buckets and values of validations from nats per token, as read, into the measure's; NaN in a run
/// that does not know its bytes of text.
void express(std::vector<History>& runs, Measure measure);

}  // namespace nsa::report
