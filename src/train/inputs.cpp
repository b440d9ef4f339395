#include "train/inputs.h"

#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <map>
#include <set>

#include "core/file.h"
#include "train/step.h"

namespace nsa {

namespace {

std::optional<data::TokenData> open_val(const Config& config) {
  if (config.data.val.empty()) return std::nullopt;
  return data::TokenData(config.data.val, config.data.sequence_length, config.model.vocab_size, config.data.headerless);
}

// A mean over nothing is no validation.
void check_val(const Config& config, const data::TokenData& val) {
  const std::int64_t sequences = sequences_of(val, config.eval.batches, config.train.micro_batch);
  for (std::int64_t s = 0; s < sequences; ++s) {
    if (val.counted(s) > 0) return;
  }
  fail_usage(
      "data.val: no target counts in the {} sequences that a validation reads ({}): set eval.batches to 0 to read all, "
      "or look at the masks (inspect_shard)",
      sequences, val.shards().front().path());
}

std::optional<data::Tokenizer> open_tokenizer(const Config& config, const data::TokenData& data) {
  if (config.data.tokenizer.empty()) return std::nullopt;
  data::Tokenizer tokenizer = data::Tokenizer::open(config.data.tokenizer);
  if (tokenizer.vocab_size() > config.model.vocab_size) {
    fail_usage("model.vocab_size is {}, but the tokenizer {} has {} tokens: set model.vocab_size to at least that",
               config.model.vocab_size, config.data.tokenizer, tokenizer.vocab_size());
  }
  if (data.tokenizer_hash() && data.tokenizer_hash() != tokenizer.hash()) {
    fail_usage(
        "data.tokenizer {} is not the one the shards were made with ({}): point data.tokenizer at that model, or "
        "tokenize the text again",
        config.data.tokenizer, data.shards().front().path());
  }
  return tokenizer;
}

/// Device and inode: the same file under whatever name.
std::pair<std::uint64_t, std::uint64_t> identity(const std::string& path) {
  struct stat info {};
  NSA_CHECK(stat(path.c_str(), &info) == 0, "shard {}: {}", path, std::strerror(errno));
  return {static_cast<std::uint64_t>(info.st_dev), static_cast<std::uint64_t>(info.st_ino)};
}

// A path relative to the working directory of the training, which was the run's folder or one above it.
std::string found_from(const std::string& run_dir, const std::string& path) {
  namespace fs = std::filesystem;
  std::error_code ignored;
  if (path == "bytes" || path.empty() || path[0] == '/' || fs::exists(path, ignored)) return path;
  fs::path folder = fs::absolute(run_dir).lexically_normal();
  for (; !fs::exists(folder / path, ignored); folder = folder.parent_path()) {
    if (folder == folder.root_path()) return path;
  }
  return folder / path;
}

}  // namespace

Inputs::Inputs(const Config& config)
    : train(config.data.train, config.data.sequence_length, config.model.vocab_size, config.data.headerless),
      val(open_val(config)),
      tokenizer(open_tokenizer(config, train)) {
  if (val && val->masked()) check_val(config, *val);
  if (tokenizer) token_bytes = bytes_of_tokens(*tokenizer, config.model.vocab_size);
  const std::string shared = val ? shared_shards(train, *val) : "";
  if (!shared.empty()) warnings.push_back(shared);
}

std::int64_t Inputs::padding_rows(const Config& config) const {
  const std::int64_t tokens = tokenizer ? tokenizer->vocab_size() : train.vocab_size();
  return tokens ? config.model.vocab_size - tokens : 0;
}

std::vector<std::int32_t> bytes_of_tokens(const data::Tokenizer& tokenizer, std::int64_t V) {
  std::vector<std::int32_t> bytes(static_cast<std::size_t>(V), 0);
  for (std::int64_t token = 0; token < std::min(V, tokenizer.vocab_size()); ++token) {
    const std::string text = tokenizer.decode({static_cast<std::int32_t>(token)});
    bytes[static_cast<std::size_t>(token)] = static_cast<std::int32_t>(text.size());
  }
  return bytes;
}

std::string shared_shards(const data::TokenData& train, const data::TokenData& val) {
  std::map<std::pair<std::uint64_t, std::uint64_t>, const data::Shard*> files;
  std::multimap<std::int64_t, const data::Shard*> by_tokens;  // fingerprints are taken only where the sizes agree
  for (const data::Shard& shard : train.shards()) {
    files.emplace(identity(shard.path()), &shard);
    by_tokens.emplace(shard.tokens(), &shard);
  }
  std::vector<std::string> shared;
  for (const data::Shard& shard : val.shards()) {
    if (files.count(identity(shard.path()))) {
      shared.push_back(shard.path());
      continue;
    }
    const auto [begin, end] = by_tokens.equal_range(shard.tokens());
    const auto copy =
        std::find_if(begin, end, [&](const auto& entry) { return entry.second->fingerprint() == shard.fingerprint(); });
    if (copy != end) shared.push_back(fmt::format("{} = {}", shard.path(), copy->second->path()));
  }
  if (shared.empty()) return "";
  constexpr std::size_t kNamed = 8;
  std::string names;
  for (std::size_t i = 0; i < std::min(shared.size(), kNamed); ++i) names += (i ? ", " : "") + shared[i];
  if (shared.size() > kNamed) names += fmt::format(" and {} more", shared.size() - kNamed);
  return fmt::format(
      "{} of {} shards in data.val are also in data.train ({}): a validation on text that was trained "
      "on says too little loss",
      shared.size(), val.shards().size(), names);
}

std::string tokenizer_copy(const std::string& run_dir) { return run_dir + "/tokenizer.model"; }

data::Tokenizer tokenizer_of_run(const std::string& run_dir, const Config& config, std::uint64_t hash,
                                 const std::string& given, std::vector<std::string>& warnings) {
  std::error_code ignored;
  const std::string copy = tokenizer_copy(run_dir), spec = !given.empty() ? given
                                                           : std::filesystem::exists(copy, ignored)
                                                               ? copy
                                                               : found_from(run_dir, config.data.tokenizer);
  if (spec.empty()) {
    fail("{}: its config names no data.tokenizer; give --tokenizer bytes or the path of a sentencepiece model",
         run_dir);
  }
  std::optional<data::Tokenizer> tokenizer;
  try {
    tokenizer = data::Tokenizer::open(spec);
  } catch (const Error& error) {
    if (!given.empty()) throw;
    fail("{}: its tokenizer cannot be opened ({}): give --tokenizer PATH", run_dir, error.what());
  }
  if (hash == 0) {
    warnings.push_back(
        fmt::format("{} may not be the tokenizer the run was trained with: its checkpoint does not say", spec));
  }
  NSA_CHECK(hash == 0 || hash == tokenizer->hash(),
            "{} is not the tokenizer the run was trained with ({:016x} instead of {:016x}), its text would be "
            "nonsense: give --tokenizer PATH of that one",
            spec, tokenizer->hash(), hash);
  NSA_CHECK(tokenizer->vocab_size() <= config.model.vocab_size,
            "the tokenizer {} has {} tokens, but the model of {} only {}: give --tokenizer PATH of its own", spec,
            tokenizer->vocab_size(), run_dir, config.model.vocab_size);
  return std::move(*tokenizer);
}

void keep_tokenizer(const std::string& run_dir, const data::Tokenizer& tokenizer) {
  if (tokenizer.spec() == "bytes") return;
  const std::string model = read_file(tokenizer.spec()), path = tokenizer_copy(run_dir);
  struct stat info {};
  if (stat(path.c_str(), &info) == 0) {
    if (read_file(path) == model) return;
    std::string aside;
    for (int i = 1; aside.empty() || stat(aside.c_str(), &info) == 0; ++i)
      aside = fmt::format("{}/tokenizer-{}.model", run_dir, i);
    NSA_CHECK(std::rename(path.c_str(), aside.c_str()) == 0, "cannot rename {} to {}: {}", path, aside,
              std::strerror(errno));
  }
  write_file_atomic(path, model);
}

}  // namespace nsa
