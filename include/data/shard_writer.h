// Writing token shards: the layouts and the side-car are described in shard.h, the mask in mask.h.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/file.h"
#include "core/file_lock.h"
#include "data/shard.h"

namespace nsa::data {

/// Writes shards PREFIX_000000.bin, ... of at most `max_tokens` each with their side-cars; uint16 when vocab_size <=
/// 65536, else uint32. Everything is written under temporary names; finish() renames all, so that a run that fails or
/// is interrupted leaves nothing. Two writers of one prefix: the second is refused, and where the file system has no
/// locks the one that finishes last. A document may span shards: it is counted in the shard that holds its eot, and its
/// bytes where they are. eot -1: nothing stands between documents. A shard has a mask when some of its tokens came with
/// one. Every error names the path and the reason.
class ShardWriter {
 public:
  /// Throws when the folder cannot be written, shards of this prefix exist already, or another process is writing them.
  ShardWriter(std::string prefix, ShardInfo info, std::int64_t max_tokens);
  ~ShardWriter();  // removes what was not finished
  ShardWriter(const ShardWriter&) = delete;
  ShardWriter& operator=(const ShardWriter&) = delete;

  void document(const std::vector<std::int32_t>& tokens,
                std::int64_t text_bytes);  ///< the whole of one: append, then end_document
  void append(const std::vector<std::int32_t>& tokens, std::int64_t text_bytes);  ///< a part of one
  /// counts: which of the tokens count as targets; all others of the shard do.
  void append(const std::vector<std::int32_t>& tokens, const std::vector<bool>& counts, std::int64_t text_bytes);
  void end_document();  ///< adds eot
  void finish();
  std::int64_t tokens() const { return total_.tokens; }
  std::int64_t documents() const { return total_.documents; }
  std::int64_t text_bytes() const { return total_.text_bytes; }
  const std::string& warning() const { return lock_->warning(); }   ///< why there is no lock, in a sentence; or ""
  const std::vector<std::string>& files() const { return files_; }  ///< final names of the shards

 private:
  void append(const std::vector<std::int32_t>& tokens, const std::vector<bool>* counts, std::int64_t text_bytes);
  void put(const std::int32_t* tokens, std::size_t n);
  void make_room();
  void open_shard();
  void close_shard();
  void write_buffer();
  void write_header() const;

  std::string prefix_;
  ShardInfo info_;  // tokenizer, hash, vocabulary and eot of every shard
  std::int64_t max_tokens_;
  int width_;
  ShardInfo total_, current_;  // counts
  std::optional<FileLock> lock_;
  std::vector<std::string> files_;
  std::vector<ShardInfo> infos_;       // of closed shards
  std::vector<unsigned char> buffer_;  // not yet written
  std::vector<bool> bits_;             // the mask of the shard being written, as far as its last token with one
  std::vector<std::string> masks_;     // final names
  std::optional<OutputFile> file_;     // the shard being written
};

}  // namespace nsa::data
