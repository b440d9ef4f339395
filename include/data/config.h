// Where the tokens come from.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/fields.h"
#include "data/shard.h"

namespace nsa {

inline const Choices kHeaderless{"auto", "uint16", "uint32"};

struct DataConfig {
  std::vector<std::string> train, val;  // globs of token shards
  std::string tokenizer;  // "bytes", a sentencepiece .model, or "" (unknown: no bits per byte, no samples)
  data::Headerless headerless = data::Headerless::guess;
  std::int64_t sequence_length = 0;  // T
  std::int64_t seed = 1;

  void fields(FieldList& v) {
    v.field("train", train,
            required("globs of token shards to learn from; relative paths start at the working directory"));
    v.field("val", val, "globs of token shards for validation");
    v.choice(
        "headerless", headerless, kHeaderless,
        "what shards without a header are; \"auto\": uint16 if they look like tokens of the vocabulary, else refused");
    v.field("tokenizer", tokenizer,
            "\"bytes\", or the path of a sentencepiece model; needed for samples and bits per byte");
    v.field("sequence_length", sequence_length, required("T, tokens in a training sequence"), Range{1, 1 << 30});
    v.field("seed", seed, "seed of the order in which sequences are visited", Range{0, 9007199254740992.0});
  }
};

}  // namespace nsa
