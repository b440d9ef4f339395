// Which tokens of a shard count as targets: a file of its own beside the shard, SHARD.mask ("x_000000.bin.mask"),
// because readers of llm.c's layout hold the shard's size against its header. Without one every token counts.
// docs/masks.md says the same for writers in other languages.
//
//   48 bytes, little-endian: "NSAMASK\n", uint64 {version = 1, tokens of the shard, how many of them count, fingerprint
//   of the shard (MappedFile::fingerprint), 0}; then a bit for each token, the lowest of a byte first, 1 where it
//   counts; the bits after the last are 0
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "data/mapped_file.h"

namespace nsa::data {

/// Path of a shard's mask.
std::string mask_of(const std::string& shard);

class Mask {
 public:
  /// Opens mask_of(shard.path()). Throws one sentence when it is truncated, no mask, or of another shard.
  Mask(const MappedFile& shard, std::int64_t tokens);
  /// Tokens that count, as the header has it; check() compares.
  std::int64_t counted() const { return counted_; }
  /// Of tokens [begin, begin + n), which are in the shard.
  std::int64_t count(std::int64_t begin, std::int64_t n) const;
  /// Puts -1 where a token does not count: targets[i] is token begin + i. Returns how many are left.
  std::int64_t apply(std::int64_t begin, std::int64_t n, std::int32_t* targets) const;
  /// Reads all of it. Throws when the bits are not as many as the header says.
  void check() const;
  std::uint64_t fingerprint() const { return file_.fingerprint(); }

 private:
  std::vector<unsigned char> bytes_of(std::int64_t begin, std::int64_t n) const;
  MappedFile file_;
  std::int64_t tokens_, counted_ = 0;
};

/// Writes the mask of a finished shard, which lies at `shard` for now, to `path`; bits: one for each of its tokens.
void write_mask(const std::string& path, const MappedFile& shard, const std::vector<bool>& bits);

}  // namespace nsa::data
