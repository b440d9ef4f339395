// Where the tokens come from.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/fields.h"

namespace nsa {

struct DataConfig {
  std::vector<std::string> train, val;  // globs of token shards
  std::string tokenizer;             // "bytes", a sentencepiece .model, or "" (unknown: no bits per byte, no samples)
  std::int64_t sequence_length = 0;  // T
  std::int64_t seed = 1;

  void fields(FieldList& v) {
    v.field("train", train,
            required("globs of token shards to learn from; relative paths start at the working directory"));
    v.field("val", val, "globs of token shards for validation");
    v.field("tokenizer", tokenizer,
            "\"bytes\", or the path of a sentencepiece model; needed for samples and bits per byte");
    v.field("sequence_length", sequence_length, required("T, tokens in a training sequence"), Range{1, 1 << 30});
    v.field("seed", seed, "seed of the order in which sequences are visited", Range{0, 9007199254740992.0});
  }
};

}  // namespace nsa
