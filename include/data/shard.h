// Token shards: files of token ids, mapped read-only. Written: llm.c's layout. Read: that, its uint32 variant, headerless uint16 (nanoGPT), BIN.TOK (LLM.Q).
//
//   llm.c uint16: int32 header[256] = {20240520, 1, count, 0...}, then count uint16        uint32 variant: {20240801, 7, count, ...}, then uint32
// A side-car NAME.json says {tokenizer, tokenizer_hash, vocab_size, eot, documents, text_bytes, tokens}; foreign shards may lack it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace nsa {

/// What the side-car file says.
struct ShardInfo {
  std::string tokenizer;
  std::uint64_t tokenizer_hash = 0;
  std::int64_t vocab_size = 0, eot = -1, documents = 0, text_bytes = 0, tokens = 0;
};

enum class ShardFormat { llmc_u16, llmc_u32, raw_u16, bin_tok };
const char* name_of(ShardFormat format);

class Shard {
 public:
  /// Maps the file, finds its layout, checks header against size. Throws one sentence (missing, empty, truncated, foreign).
  explicit Shard(const std::string& path);
  ~Shard();
  Shard(Shard&&) noexcept;
  Shard& operator=(Shard&&) = delete;

  const std::string& path() const { return path_; }
  ShardFormat format() const { return format_; }
  std::int64_t tokens() const { return tokens_; }
  const std::optional<ShardInfo>& info() const { return info_; }
  /// tokens [begin, begin+n) as int32. Throws naming file, offset and value when a token >= vocab_size.
  void read(std::int64_t begin, std::int64_t n, std::int32_t* out, std::int64_t vocab_size) const;
  /// Identity for resume: XXH3 of size, header and a sample of pages spread over the file (whole file when small).
  std::uint64_t fingerprint() const;

 private:
  std::string path_;
  ShardFormat format_ = ShardFormat::raw_u16;
  std::int64_t tokens_ = 0;
  int width_ = 2;                       // bytes per token
  const unsigned char* map_ = nullptr;  // whole file
  const unsigned char* data_ = nullptr; // first token
  std::size_t size_ = 0;
  std::optional<ShardInfo> info_;
};

/// Writes shards NAME_000000.bin, ... of at most `max_tokens` each with their side-cars; uint16 when vocab_size <= 65536, else uint32. Each file is written
/// under a temporary name and renamed when complete; a document may span shards.
class ShardWriter {
 public:
  ShardWriter(std::string prefix, ShardInfo info, std::int64_t max_tokens);
  ~ShardWriter();  // removes an unfinished temporary
  void document(const std::vector<std::int32_t>& tokens, std::int64_t text_bytes);  ///< eot is added after it
  void finish();
  std::int64_t tokens() const { return total_tokens_; }
  std::int64_t documents() const { return total_documents_; }
  const std::vector<std::string>& files() const { return files_; }

 private:
  void flush_shard();
  std::string prefix_;
  ShardInfo info_;
  std::int64_t max_tokens_, total_tokens_ = 0, total_documents_ = 0;
  std::vector<std::string> files_;
  int fd_ = -1;
  std::string tmp_path_;
  std::vector<std::int32_t> pending_;
  ShardInfo current_;
};

/// Files matching the globs, sorted within a glob, duplicates dropped. Throws naming the glob that matches nothing.
std::vector<std::string> expand_globs(const std::vector<std::string>& globs);

}  // namespace nsa
