// Text <-> tokens. "bytes": token = byte value, end of text = 256, vocabulary 257. Otherwise a sentencepiece BPE model with byte fallback.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace nsa {

class Tokenizer {
 public:
  /// "bytes" or the path of a sentencepiece model. Throws naming the path when it cannot be read or is not a sentencepiece model.
  static Tokenizer open(const std::string& spec);
  ~Tokenizer();
  Tokenizer(Tokenizer&&) noexcept;
  Tokenizer& operator=(Tokenizer&&) noexcept;

  std::int64_t vocab_size() const;
  std::int32_t eot() const;                ///< separates documents
  std::uint64_t hash() const;              ///< XXH3 of the model file ("bytes": of that word); shards remember it
  const std::string& spec() const;         ///< what open() was given
  /// Tokens of `text`, without eot. decode(encode(x)) == x for valid UTF-8 (bytes: for any bytes). Thread-safe.
  void encode(std::string_view text, std::vector<std::int32_t>& out) const;
  std::vector<std::int32_t> encode(std::string_view text) const;
  /// Text of tokens; eot decodes to nothing.
  std::string decode(const std::vector<std::int32_t>& tokens) const;

 private:
  struct Impl;
  explicit Tokenizer(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

/// Text that arrives token by token, for streaming: returns what can be printed now and keeps an unfinished UTF-8 sequence for later.
class StreamDecoder {
 public:
  explicit StreamDecoder(const Tokenizer& tokenizer) : tokenizer_(tokenizer) {}
  std::string push(std::int32_t token);
  std::string finish();

 private:
  const Tokenizer& tokenizer_;
  std::vector<std::int32_t> tokens_;
  std::size_t printed_ = 0;
};

}  // namespace nsa
