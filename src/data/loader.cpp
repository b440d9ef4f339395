#include "data/loader.h"

#include <signal.h>
#include <xxhash.h>

#include <algorithm>
#include <system_error>
#include <utility>

#include "core/check.h"
#include "core/rng.h"

namespace nsa::data {

Permutation::Permutation(std::int64_t n, std::uint64_t key) : n_(n), key_(key), half_bits_(1) {
  NSA_CHECK(n >= 1 && n <= std::int64_t{1} << 60, "permutation: of {} elements", n);
  while (std::int64_t{1} << (2 * half_bits_) < n) ++half_bits_;
}

std::int64_t Permutation::operator()(std::int64_t i) const {
  const std::uint64_t mask = (std::uint64_t{1} << half_bits_) - 1;
  auto x = static_cast<std::uint64_t>(i);
  do {  // the domain is less than 4 n, so this takes fewer than 4 rounds on average
    std::uint64_t left = x >> half_bits_, right = x & mask;
    for (std::uint64_t round = 0; round < 6; ++round) {
      const std::uint64_t next = left ^ (mix64(key_ ^ mix64(right + (round << 32))) & mask);
      left = right;
      right = next;
    }
    x = left << half_bits_ | right;
  } while (x >= static_cast<std::uint64_t>(n_));
  return static_cast<std::int64_t>(x);
}

TokenData::TokenData(const std::vector<std::string>& globs, std::int64_t T, std::int64_t vocab_size,
                     Headerless headerless)
    : T_(T), model_vocab_(vocab_size) {
  NSA_CHECK(T >= 1, "data: sequence length {} is not positive", T);
  NSA_CHECK(!globs.empty(), "data: no shards given");
  first_.push_back(0);
  std::int64_t longest = 0;
  const Shard* with_hash = nullptr;
  std::vector<std::string> files = expand_globs(globs);
  shards_.reserve(files.size());  // with_hash points into it
  for (const std::string& file : files) {
    const Shard& shard = shards_.emplace_back(file, headerless);
    shard.check_guess(vocab_size);
    first_.push_back(first_.back() + std::max<std::int64_t>(0, shard.tokens() - 1) / T);
    longest = std::max(longest, shard.tokens());
    if (!shard.info()) continue;
    const ShardInfo& info = *shard.info();
    NSA_CHECK(info.vocab_size <= vocab_size,
              "shard {}: made for a vocabulary of {}, but the model's is {}: set model.vocab_size to at least that, or "
              "make the shards with the model's tokenizer",
              file, info.vocab_size, vocab_size);
    if (info.tokenizer_hash == 0) continue;
    if (with_hash && with_hash->info()->tokenizer_hash != info.tokenizer_hash) {
      fail(
          "shard {}: made with the tokenizer {} ({:016x}), but {} with {} ({:016x}): shards of one run need one "
          "tokenizer",
          file, info.tokenizer, info.tokenizer_hash, with_hash->path(), with_hash->info()->tokenizer,
          with_hash->info()->tokenizer_hash);
    }
    with_hash = &shard;
  }
  NSA_CHECK(sequences() > 0,
            "data: no shard holds a single sequence: one takes {} + 1 tokens, the longest of {} shards has {} ({}): "
            "give more text or a shorter data.sequence_length",
            T, shards_.size(), longest, files[0]);
  NSA_CHECK(counted() > 0, "data: none of {} tokens counts as a target: the masks of {} shards, the first {}, say so",
            tokens(), shards_.size(), mask_of(files[0]));
}

std::int64_t TokenData::tokens() const {
  std::int64_t sum = 0;
  for (const Shard& shard : shards_) sum += shard.tokens();
  return sum;
}

std::int64_t TokenData::skipped_tokens() const {
  std::int64_t used = 0;
  for (std::size_t s = 0; s < shards_.size(); ++s) {
    const std::int64_t sequences = first_[s + 1] - first_[s];
    if (sequences > 0) used += sequences * T_ + 1;
  }
  return tokens() - used;
}

bool TokenData::masked() const {
  return std::any_of(shards_.begin(), shards_.end(), [](const Shard& shard) { return shard.mask().has_value(); });
}

std::int64_t TokenData::counted() const {
  std::int64_t sum = 0;
  for (const Shard& shard : shards_) sum += shard.mask() ? shard.mask()->counted() : shard.tokens();
  return sum;
}

std::size_t TokenData::shard_of(std::int64_t sequence) const {
  NSA_CHECK(sequence >= 0 && sequence < sequences(), "data: sequence {} asked for, but there are {}", sequence,
            sequences());
  // The last shard that starts at or before it; shards without a sequence share their start with the next one.
  return static_cast<std::size_t>(std::upper_bound(first_.begin(), first_.end(), sequence) - first_.begin() - 1);
}

TokenData::Place TokenData::place_of(std::int64_t sequence) const {
  const std::size_t s = shard_of(sequence);
  return {shards_[s], (sequence - first_[s]) * T_};
}

void TokenData::read(std::int64_t sequence, std::int32_t* out) const {
  const auto [shard, begin] = place_of(sequence);
  const std::int64_t own = shard.info() ? shard.info()->vocab_size : 0;  // padding of the model is no token
  shard.read(begin, T_ + 1, out, own > 0 ? own : model_vocab_);
}

std::int64_t TokenData::read(std::int64_t sequence, std::int32_t* inputs, std::int32_t* targets) const {
  std::vector<std::int32_t> tokens(static_cast<std::size_t>(T_ + 1));
  read(sequence, tokens.data());
  std::copy_n(tokens.data(), T_, inputs);
  std::copy_n(tokens.data() + 1, T_, targets);
  const auto [shard, begin] = place_of(sequence);
  return shard.mask() ? shard.mask()->apply(begin + 1, T_, targets) : T_;
}

std::int64_t TokenData::counted(std::int64_t sequence) const {
  const auto [shard, begin] = place_of(sequence);
  return shard.mask() ? shard.mask()->count(begin + 1, T_) : T_;
}

std::int64_t TokenData::vocab_size() const {
  std::int64_t largest = 0;
  for (const Shard& shard : shards_) {
    if (shard.info()) largest = std::max(largest, shard.info()->vocab_size);
  }
  return largest;
}

double TokenData::bytes_per_token() const {
  std::int64_t bytes = 0;
  for (const Shard& shard : shards_) {
    if (!shard.info() || shard.info()->tokenizer_hash == 0) return 0;  // no side-car of ours
    bytes += shard.info()->text_bytes;
  }
  return static_cast<double>(bytes) / static_cast<double>(tokens());
}

std::uint64_t TokenData::tokenizer_hash() const {
  for (const Shard& shard : shards_) {
    if (shard.info() && shard.info()->tokenizer_hash != 0) return shard.info()->tokenizer_hash;
  }
  return 0;
}

std::uint64_t TokenData::fingerprint() const {
  std::vector<std::uint64_t> all;
  for (const Shard& shard : shards_) {
    all.push_back(shard.fingerprint());
    if (shard.mask()) all.push_back(shard.mask()->fingerprint());
  }
  return XXH3_64bits(all.data(), all.size() * sizeof(all[0]));
}

Loader::Loader(const TokenData& data, std::uint64_t seed, std::int64_t B) : data_(data), seed_(seed) {
  NSA_CHECK(B >= 1, "loader: micro-batches of {} sequences", B);
  const std::int64_t size = B * data.T();
  memory_.resize(static_cast<std::size_t>(4 * size));
  for (std::int64_t i = 0; i < 2; ++i) {
    std::int32_t* memory = memory_.data() + 2 * i * size;
    buffers_[static_cast<std::size_t>(i)] = {memory, memory + size, B, data.T()};
  }
}

Loader::~Loader() {
  {
    const std::lock_guard lock(lock_);
    stop_ = true;
  }
  changed_.notify_all();
  if (thread_.joinable()) thread_.join();
}

std::int64_t Loader::sequence_at(std::int64_t position) const {
  NSA_CHECK(position >= 0, "loader: position {} is negative", position);
  const std::int64_t S = data_.sequences(), epoch = position / S;
  return Permutation(S, Rng(seed_, "shuffle").bits(static_cast<std::uint64_t>(epoch)))(position % S);
}

std::int64_t Loader::counted(std::int64_t position, std::int64_t n) const {
  if (!data_.masked()) return n * data_.T();
  std::int64_t sum = 0;
  for (std::int64_t i = 0; i < n; ++i) sum += data_.counted(sequence_at(position + i));
  return sum;
}

void Loader::prepare(std::int64_t position, const HostBatch& into) const {
  for (std::int64_t b = 0; b < into.B; ++b)
    data_.read(sequence_at(position + b), into.inputs + b * into.T, into.targets + b * into.T);
}

const HostBatch& Loader::batch(std::int64_t position) {
  {
    std::unique_lock lock(lock_);
    changed_.wait(lock, [&] { return !busy_; });
  }
  const std::size_t other = 1 - used_;
  const bool guessed = std::exchange(ahead_, -1) == position;
  if (const std::exception_ptr error = std::exchange(ahead_failed_, nullptr); error && guessed) {
    std::rethrow_exception(error);
  }
  if (!guessed) prepare(position, buffers_[other]);
  used_ = other;
  prepare_ahead(position + buffers_[used_].B);
  return buffers_[used_];
}

/// The thread begins with the first batch, not with the loader: a process may fork in between.
void Loader::prepare_ahead(std::int64_t position) {
  try {
    if (!thread_.joinable()) thread_ = std::thread([this] { work(); });
  } catch (const std::system_error&) {  // no thread to be had: batch() does its work itself
    return;
  }
  ahead_ = position;
  {
    const std::lock_guard lock(lock_);
    busy_ = true;
  }
  changed_.notify_all();
}

void Loader::work() {
  // Signals that end or save a run are for the main thread. Those of a fault must stay: blocked, they kill at once.
  sigset_t others;
  sigfillset(&others);
  for (const int fault : {SIGBUS, SIGSEGV, SIGFPE, SIGILL, SIGTRAP, SIGABRT}) sigdelset(&others, fault);
  pthread_sigmask(SIG_BLOCK, &others, nullptr);
  std::unique_lock lock(lock_);
  while (true) {
    changed_.wait(lock, [&] { return busy_ || stop_; });
    if (stop_) return;
    lock.unlock();
    try {
      prepare(ahead_, buffers_[1 - used_]);
    } catch (...) {
      ahead_failed_ = std::current_exception();
    }
    lock.lock();
    busy_ = false;
    changed_.notify_all();
  }
}

}  // namespace nsa::data
