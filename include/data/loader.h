// Batches. A shard holds floor((tokens-1)/T) sequences of T+1 tokens (neighbours share one token); every sequence is
// visited once per epoch in a seeded permutation. The whole state is one number, the global sequence index: sequence g
// is element g % S of the permutation of epoch g / S. It does not depend on the micro-batch or on the number of ranks,
// so a run resumes with others.
#pragma once

#include <array>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "data/shard.h"

namespace nsa::data {

/// A bijection of [0, n) that needs no memory: a Feistel network over the next power of four, cycle-walking.
class Permutation {
 public:
  Permutation(std::int64_t n, std::uint64_t key);
  std::int64_t operator()(std::int64_t i) const;

 private:
  std::int64_t n_;
  std::uint64_t key_;
  int half_bits_;
};

/// A set of shards seen as sequences.
class TokenData {
 public:
  /// Throws one sentence when nothing matches, a shard is bad, its side-car names a larger vocabulary, or no shard
  /// holds a single sequence.
  TokenData(const std::vector<std::string>& globs, std::int64_t T, std::int64_t vocab_size,
            Headerless headerless = Headerless::guess);
  std::int64_t T() const { return T_; }
  std::int64_t sequences() const { return first_.back(); }
  std::int64_t tokens() const;
  std::int64_t skipped_tokens() const;  ///< tails and shards shorter than a sequence
  bool masked() const;                  ///< some shard has a mask
  std::int64_t counted() const;         ///< tokens that count as targets; all without masks
  /// How many of the T targets of a sequence count.
  std::int64_t counted(std::int64_t sequence) const;
  const std::vector<Shard>& shards() const { return shards_; }
  std::size_t shard_of(std::int64_t sequence) const;          ///< index into shards()
  void read(std::int64_t sequence, std::int32_t* out) const;  ///< T+1 tokens, each checked against the vocabulary
  /// The same as T inputs and T targets, which are -1 where they do not count. Returns how many count.
  std::int64_t read(std::int64_t sequence, std::int32_t* inputs, std::int32_t* targets) const;
  /// The largest vocabulary a side-car names: the model's rows from there on are padding. 0 when unknown.
  std::int64_t vocab_size() const;
  /// Mean bytes of text per token, when every side-car says so; else 0. (bits per byte = loss / ln 2 / bytes_per_token)
  double bytes_per_token() const;
  std::uint64_t tokenizer_hash() const;  ///< 0 when unknown
  std::uint64_t fingerprint() const;     ///< of all shards and masks in order

 private:
  struct Place {
    const Shard& shard;
    std::int64_t begin;  // first token
  };
  Place place_of(std::int64_t sequence) const;

  std::vector<Shard> shards_;
  std::vector<std::int64_t> first_;  // first sequence of each shard, then the total
  std::int64_t T_, model_vocab_;
};

/// A micro-batch in host memory: inputs (B,T) and targets (B,T), the inputs shifted by one, -1 where a mask says that
/// the token does not count.
struct HostBatch {
  std::int32_t *inputs = nullptr, *targets = nullptr;
  std::int64_t B = 0, T = 0;
};

/// Micro-batches of B sequences in visiting order (seeded), across epochs. While one is used, a thread prepares the
/// next. There is no state to save: a batch depends on its position alone.
class Loader {
 public:
  Loader(const TokenData& data, std::uint64_t seed, std::int64_t B);
  ~Loader();
  Loader(const Loader&) = delete;
  Loader& operator=(const Loader&) = delete;

  /// Sequences position .. position+B-1; valid until the next call. Fast when position is the one before plus B. Throws
  /// what went wrong with this batch, and that only; another position can still be asked for. Callers take turns.
  const HostBatch& batch(std::int64_t position);
  /// How many targets count in sequences position .. position+n-1; reads masks only.
  std::int64_t counted(std::int64_t position, std::int64_t n) const;
  /// The sequence behind a global index.
  std::int64_t sequence_at(std::int64_t position) const;

 private:
  void prepare(std::int64_t position, const HostBatch& into) const;
  void prepare_ahead(std::int64_t position);
  void work();

  const TokenData& data_;
  std::uint64_t seed_;
  std::vector<std::int32_t> memory_;  // of both buffers
  std::array<HostBatch, 2> buffers_;
  std::size_t used_ = 1;             // by the caller; the other one is for the thread
  std::int64_t ahead_ = -1;          // position of what is in the other one; -1: nothing
  std::exception_ptr ahead_failed_;  // why it is not

  // All of the above but ahead_failed_ and the other buffer is the caller's alone; those are the thread's while busy_.
  std::mutex lock_;
  std::condition_variable changed_;
  bool busy_ = false, stop_ = false;
  std::thread thread_;
};

}  // namespace nsa::data
