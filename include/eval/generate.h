// Text from a model, one token at a time. The prefix is recomputed for every token (no cache yet): fine for samples,
// slow for long texts.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "data/tokenizer.h"
#include "model/gpt.h"

namespace nsa {

struct GenerateOptions {
  std::int64_t tokens = 128;  ///< at most; an end-of-text token ends earlier
  double temperature = 0.8;   ///< 0: the likeliest token
  std::int64_t top_k = 0;     ///< 0: all
  double top_p = 1.0;         ///< nucleus: the smallest set of likeliest tokens that holds this probability
  std::uint64_t seed = 1;
};

/// Draws from logits (V floats, only the first `vocab` of them: a model may have more rows than the tokenizer has
/// tokens). `index` is the draw's number.
std::int32_t draw(const float* logits, std::int64_t vocab, const GenerateOptions& options, std::int64_t index);

/// The continuation of `prompt` (empty: the start of a document). Sees the last max_T tokens. `stream`, if given, gets
/// the text piece by piece.
std::string generate(Device& dev, const Gpt& gpt, const data::Tokenizer& tokenizer, const std::string& prompt,
                     std::int64_t max_T, const GenerateOptions& options,
                     const std::function<void(std::string_view)>& stream = {});

}  // namespace nsa
