// Text <-> tokens. "bytes": token = byte value, end of text = 256, vocabulary 257. Otherwise a sentencepiece BPE model
// with byte fallback.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace nsa::data {

/// Name of the piece that separates documents in models made by train_tokenizer; its type is "control", so no text can
/// produce it.
inline constexpr const char* kEotPiece = "<eot>";

class Tokenizer {
 public:
  /// "bytes" or the path of a sentencepiece model. Throws naming the path when it cannot be read, is not a
  /// sentencepiece model, has no byte fallback or end-of-text piece, or is not lossless (normalisation, dummy prefix,
  /// removal of spaces).
  static Tokenizer open(const std::string& spec);
  ~Tokenizer();
  Tokenizer(Tokenizer&&) noexcept;
  Tokenizer& operator=(Tokenizer&&) noexcept;

  std::int64_t vocab_size() const;
  std::int32_t eot() const;         ///< separates documents
  std::uint64_t hash() const;       ///< XXH3 of the model file ("bytes": of that word); shards remember it
  const std::string& spec() const;  ///< what open() was given
  /// Appends the tokens of `text`, without eot. decode(encode(x)) == x for any bytes (bytes that are not UTF-8 become
  /// byte tokens). Thread-safe.
  void encode(std::string_view text, std::vector<std::int32_t>& out) const;
  std::vector<std::int32_t> encode(std::string_view text) const;
  /// Text of tokens; eot and other control tokens decode to nothing. decode(a + b) == decode(a) + decode(b).
  std::string decode(const std::vector<std::int32_t>& tokens) const;
  /// Largest p <= at, p < text.size(), with encode(text) == encode(text[0,p)) + encode(text[p,..)) whatever follows; 0
  /// when there is none. This is what lets one huge document be encoded in parallel without changing a token: no piece
  /// of the vocabulary joins the two bytes around p.
  std::size_t cut(std::string_view text, std::size_t at) const;

 private:
  struct Impl;
  explicit Tokenizer(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

/// Text that arrives token by token, for streaming: returns what can be printed now and keeps an unfinished UTF-8
/// sequence for later.
class StreamDecoder {
 public:
  explicit StreamDecoder(const Tokenizer& tokenizer) : tokenizer_(tokenizer) {}
  std::string push(std::int32_t token);
  std::string finish();

 private:
  const Tokenizer& tokenizer_;
  std::string unfinished_;
};

}  // namespace nsa::data
