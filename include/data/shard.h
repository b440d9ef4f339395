// Token shards: files of token ids, mapped read-only. Written: llm.c's layout. Read: that, its uint32 variant,
// headerless uint16 (nanoGPT) and uint32, BIN.TOK (LLM.Q).
//
//   llm.c uint16: int32 header[256] = {20240520, 1, count, 0...}, then count uint16        uint32 variant: {20240801,
//   7, count, ...}, then uint32 BIN.TOK: 1024 bytes = "BIN.TOK\n", int32 {version 1 or 2, bytes per token = 4, count,
//   and in version 2: vocabulary, has_mask}, then uint32 (then the mask, which is skipped). As LLM.Q's data loader
//   reads it and its tokenize_data.py writes it.
// A side-car SHARD.json ("x_000000.bin.json") says {tokenizer, tokenizer_hash, vocab_size, eot, documents, text_bytes,
// tokens}; foreign shards may lack it. eot is -1 where no end-of-text token stands between documents. A mask SHARD.mask
// (mask.h) says which tokens count as targets; without one all do.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "data/mapped_file.h"
#include "data/mask.h"

namespace nsa::data {

/// What the side-car file says. Of a BIN.TOK shard without one, vocab_size and tokens are known from its header.
struct ShardInfo {
  std::string tokenizer;
  std::uint64_t tokenizer_hash = 0;
  std::int64_t vocab_size = 0, eot = -1, documents = 0, text_bytes = 0, tokens = 0;
};

enum class ShardFormat { llmc_u16, llmc_u32, raw_u16, raw_u32, bin_tok };
const char* name_of(ShardFormat format);

/// What a file without any known header is: uint16 tokens if it looks like them, or what the user says.
enum class Headerless { guess, uint16, uint32 };

inline constexpr std::int32_t kMagicU16 = 20240520, kMagicU32 = 20240801;  ///< first header word of llm.c's two layouts

/// Path of a shard's side-car.
std::string side_car_of(const std::string& shard);

class Shard {
 public:
  /// Maps the file, finds its layout, checks header against size, and side-car and mask against it. Throws one sentence
  /// (missing, empty, truncated, foreign).
  explicit Shard(const std::string& path, Headerless headerless = Headerless::guess);

  const std::string& path() const { return file_.path(); }
  ShardFormat format() const { return format_; }
  std::int64_t tokens() const { return tokens_; }
  const std::optional<ShardInfo>& info() const { return info_; }
  const std::optional<Mask>& mask() const { return mask_; }
  /// Of a headerless file whose layout is a guess: throws when its first megabytes do not look like uint16 tokens of
  /// this vocabulary, saying how the guess is overruled.
  void check_guess(std::int64_t vocab_size) const;
  /// tokens [begin, begin+n) as int32. Throws naming file, offset and value when a token >= vocab_size, and when the
  /// file has become shorter since it was opened.
  void read(std::int64_t begin, std::int64_t n, std::int32_t* out, std::int64_t vocab_size) const;
  /// Identity of the tokens for resume: XXH3 of size, header and a sample of pages spread over the file (whole file
  /// when small).
  std::uint64_t fingerprint() const { return file_.fingerprint(); }

 private:
  void find_layout();
  void no_header();
  std::int32_t header_word(std::size_t i) const;
  MappedFile file_;
  Headerless headerless_ = Headerless::guess;
  ShardFormat format_ = ShardFormat::raw_u16;
  std::int64_t tokens_ = 0;
  std::int64_t header_vocab_ = 0;  // 0: the header does not say
  int width_ = 2;                  // bytes per token
  std::size_t first_ = 0;          // byte of the first token
  std::optional<ShardInfo> info_;
  std::optional<Mask> mask_;
};

/// Files matching the globs, sorted within a glob, duplicates dropped. Throws naming the glob that matches nothing.
std::vector<std::string> expand_globs(const std::vector<std::string>& globs);

}  // namespace nsa::data
