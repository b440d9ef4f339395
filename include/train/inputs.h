// What a run reads: token shards and a tokenizer, opened and held against each other and against the model.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "data/loader.h"
#include "data/tokenizer.h"
#include "train/config.h"

namespace nsa {

/// What makes data the same data, wherever they lie.
struct DataIdentity {
  std::uint64_t fingerprint = 0;     ///< of all training shards, in order
  std::uint64_t tokenizer_hash = 0;  ///< 0: no tokenizer
};

struct Inputs {
  data::TokenData train;
  std::optional<data::TokenData> val;
  std::optional<data::Tokenizer> tokenizer;
  std::vector<std::int32_t> token_bytes;  ///< (V) bytes of text behind each token; empty without a tokenizer
  std::vector<std::string> warnings;      ///< what may be meant, but hardly is

  /// Opens everything. Throws one sentence when something is missing or does not belong together.
  explicit Inputs(const Config& config);

  DataIdentity identity() const { return {train.fingerprint(), tokenizer ? tokenizer->hash() : 0}; }
  /// Rows of the model's vocabulary that no token has; 0 also when nobody says how many tokens there are.
  std::int64_t padding_rows(const Config& config) const;
};

/// Bytes of text behind each of the first V tokens; end of text, control tokens and padding rows have none.
std::vector<std::int32_t> bytes_of_tokens(const data::Tokenizer& tokenizer, std::int64_t V);

/// One sentence naming the shards of `val` that are also in `train`, as the same file or as a copy; "" when none is.
std::string shared_shards(const data::TokenData& train, const data::TokenData& val);

/// runs/NAME/tokenizer.model: the sentencepiece model as it was when the run began.
std::string tokenizer_copy(const std::string& run_dir);
/// The tokenizer a trained run speaks: `given` (--tokenizer) if not empty, else the copy in the run's folder, else
/// data.tokenizer, a relative path being looked for from here and then from the run's folder upwards. Throws when it is
/// not the one of `hash` (TrainState::tokenizer_hash; 0: a warning that it cannot be compared).
data::Tokenizer tokenizer_of_run(const std::string& run_dir, const Config& config, std::uint64_t hash,
                                 const std::string& given, std::vector<std::string>& warnings);
/// Copies the model file behind `tokenizer` ("bytes" has none) there; another one that is there steps aside.
void keep_tokenizer(const std::string& run_dir, const data::Tokenizer& tokenizer);

}  // namespace nsa
