#include "data/shard.h"

#include <glob.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <set>
#include <string_view>

#include "core/check.h"
#include "core/file.h"
#include "data/content.h"
#include "data/headerless.h"

namespace nsa::data {
namespace {

constexpr std::size_t kHeaderBytes = 1024;  // 256 int32, in every layout that has a header
constexpr std::string_view kBinTok("BIN.TOK\n", 8);

constexpr const char* kOverrule = "data.headerless (of inspect_shard: --headerless) = uint16 or uint32 says what it is";

std::optional<ShardInfo> read_side_car(const std::string& shard) {
  const std::string path = side_car_of(shard);
  if (!std::filesystem::exists(path)) return std::nullopt;
  try {
    const auto json = nlohmann::json::parse(read_file(path));
    ShardInfo info;
    info.tokenizer = json.at("tokenizer").get<std::string>();
    info.tokenizer_hash = std::stoull(json.at("tokenizer_hash").get<std::string>(), nullptr, 16);
    info.vocab_size = json.at("vocab_size").get<std::int64_t>();
    info.eot = json.at("eot").get<std::int64_t>();
    info.documents = json.at("documents").get<std::int64_t>();
    info.text_bytes = json.at("text_bytes").get<std::int64_t>();
    info.tokens = json.at("tokens").get<std::int64_t>();
    return info;
  } catch (const Error&) {
    throw;
  } catch (const std::exception& e) {
    fail("shard side-car {}: cannot be understood ({}); delete it to use the shard without it", path, e.what());
  }
}

/// In place, from the back: n tokens of type T at the beginning of `out` become int32. The highest of them.
template <class T>
std::int64_t widen(std::int64_t n, std::int32_t* out) {
  const auto* bytes = reinterpret_cast<const unsigned char*>(out);
  std::uint32_t highest = 0;
  for (std::int64_t i = n - 1; i >= 0; --i) {
    T token;
    std::memcpy(&token, bytes + static_cast<std::size_t>(i) * sizeof(T), sizeof(T));
    highest = std::max<std::uint32_t>(highest, token);
    out[i] = static_cast<std::int32_t>(token);
  }
  return highest;
}

}  // namespace

const char* name_of(ShardFormat format) {
  switch (format) {
    case ShardFormat::llmc_u16: return "llm.c uint16";
    case ShardFormat::llmc_u32: return "llm.c uint32";
    case ShardFormat::raw_u16: return "headerless uint16";
    case ShardFormat::raw_u32: return "headerless uint32";
    case ShardFormat::bin_tok: return "BIN.TOK";
  }
  return "?";
}

std::string side_car_of(const std::string& shard) { return shard + ".json"; }

std::int32_t Shard::header_word(std::size_t i) const {
  std::int32_t word;
  file_.copy(&word, 4 * i, 4);
  return word;
}

void Shard::no_header() {
  const std::string& path = file_.path();
  const std::size_t size = file_.size();
  width_ = headerless_ == Headerless::uint32 ? 4 : 2;
  format_ = width_ == 4 ? ShardFormat::raw_u32 : ShardFormat::raw_u16;
  tokens_ = static_cast<std::int64_t>(size) / width_;
  if (headerless_ == Headerless::guess) {
    std::string head(std::min(size, kHeadBytes), '\0');
    file_.copy(head.data(), 0, head.size());
    const std::string foreign = foreign_content(head);
    NSA_CHECK(foreign.empty(), "shard {}: this is {}, not token ids; the tool `tokenize` makes shards from text ({})",
              path, foreign, kOverrule);
  }
  NSA_CHECK(size % static_cast<std::size_t>(width_) == 0,
            "shard {}: no known header and an odd size of {} bytes, so not headerless uint{} tokens either: "
            "truncated or not a shard",
            path, size, 8 * width_);
}

void Shard::check_guess(std::int64_t vocab_size) const {
  constexpr std::int64_t kFirst = 2 << 20;  // tokens
  if (format_ != ShardFormat::raw_u16 || headerless_ != Headerless::guess) return;
  std::vector<std::uint16_t> tokens(static_cast<std::size_t>(std::min(tokens_, kFirst)));
  file_.copy(tokens.data(), first_, 2 * tokens.size());
  const std::string why = unlike_tokens(tokens, vocab_size);
  NSA_CHECK(why.empty(), "shard {}: no known header, and as headerless uint16 tokens {}: {}", path(), why, kOverrule);
}

void Shard::find_layout() {
  const std::string& path = file_.path();
  const std::size_t bytes = file_.size();
  const auto check_version = [&](std::int32_t got, std::int32_t lowest, std::int32_t highest) {
    NSA_CHECK(got >= lowest && got <= highest, "shard {}: {} header with version {}, but only {}{} is known", path,
              name_of(format_), got, lowest, highest > lowest ? fmt::format(" to {}", highest) : "");
  };
  std::string magic(std::min(bytes, kBinTok.size()), '\0');
  file_.copy(magic.data(), 0, magic.size());
  const std::int32_t first = bytes >= 4 ? header_word(0) : 0;
  if (magic == kBinTok) {
    format_ = ShardFormat::bin_tok;
  } else if (first == kMagicU16 || first == kMagicU32) {
    format_ = first == kMagicU16 ? ShardFormat::llmc_u16 : ShardFormat::llmc_u32;
  } else {
    return no_header();
  }
  NSA_CHECK(bytes >= kHeaderBytes, "shard {}: truncated: {} bytes, but its {} header alone takes {}", path, bytes,
            name_of(format_), kHeaderBytes);
  std::int64_t extra = 0;  // bytes allowed after the tokens
  if (format_ == ShardFormat::bin_tok) {
    check_version(header_word(2), 1, 2);
    NSA_CHECK(header_word(3) == 4, "shard {}: BIN.TOK with {} bytes per token, but only 4 is known", path,
              header_word(3));
    tokens_ = header_word(4);
    if (header_word(2) == 2) header_vocab_ = header_word(5);
    if (header_word(2) == 2 && header_word(6) != 0)
      extra = tokens_ / 8 + tokens_ % 8;  // its loss mask, which is not used here
  } else {
    check_version(header_word(1), format_ == ShardFormat::llmc_u16 ? 1 : 7, format_ == ShardFormat::llmc_u16 ? 1 : 7);
    tokens_ = header_word(2);
  }
  width_ = format_ == ShardFormat::llmc_u16 ? 2 : 4;
  first_ = kHeaderBytes;
  const std::int64_t expected = static_cast<std::int64_t>(kHeaderBytes) + tokens_ * width_,
                     size = static_cast<std::int64_t>(bytes);
  NSA_CHECK(tokens_ >= 0, "shard {}: its header says {} tokens: damaged", path, tokens_);
  NSA_CHECK(size >= expected,
            "shard {}: truncated: its header says {} tokens, which needs {} bytes, but the file has {}", path, tokens_,
            expected, size);
  NSA_CHECK(size <= expected + extra,
            "shard {}: its header says {} tokens, which needs {} bytes, but the file has {}: the header was not "
            "completed, or two files were joined",
            path, tokens_, expected, size);
}

Shard::Shard(const std::string& path, Headerless headerless) : file_("shard", path), headerless_(headerless) {
  find_layout();
  info_ = read_side_car(path);
  if (info_) {
    NSA_CHECK(info_->tokens == tokens_, "shard {}: {} tokens, but its side-car {} says {}: they do not belong together",
              path, tokens_, side_car_of(path), info_->tokens);
  } else if (header_vocab_ > 0) {
    info_ = ShardInfo{.tokenizer = "", .vocab_size = header_vocab_, .tokens = tokens_};
  }
  std::error_code ignored;
  if (std::filesystem::exists(std::filesystem::symlink_status(mask_of(path), ignored))) mask_.emplace(file_, tokens_);
}

void Shard::read(std::int64_t begin, std::int64_t n, std::int32_t* out, std::int64_t vocab_size) const {
  NSA_CHECK(begin >= 0 && n >= 0 && begin <= tokens_ - n, "shard {}: tokens {} to {} asked for, but it has {}", path(),
            begin, begin + n, tokens_);
  file_.copy(out, first_ + static_cast<std::size_t>(begin * width_), static_cast<std::size_t>(n * width_));
  const std::int64_t highest = width_ == 2 ? widen<std::uint16_t>(n, out) : widen<std::uint32_t>(n, out);
  if (n == 0 || highest < vocab_size) return;
  for (std::int64_t i = 0; i < n; ++i) {
    const std::int64_t token = static_cast<std::uint32_t>(out[i]);
    NSA_CHECK(token < vocab_size,
              "shard {}: token {} at offset {} is outside the vocabulary of {}: the shard was made with another "
              "tokenizer, or is damaged",
              path(), token, begin + i, vocab_size);
  }
}

std::vector<std::string> expand_globs(const std::vector<std::string>& globs) {
  std::vector<std::string> files;
  std::set<std::string> seen;
  for (const std::string& pattern : globs) {
    std::vector<std::string> found;
    std::error_code ignored;
    if (std::filesystem::exists(pattern, ignored)) {  // a name with [ or * in it is still a name
      found.push_back(pattern);
    } else {
      glob_t result{};
      const int status = ::glob(pattern.c_str(), GLOB_TILDE, nullptr, &result);
      for (std::size_t i = 0; i < result.gl_pathc; ++i) found.emplace_back(result.gl_pathv[i]);
      ::globfree(&result);
      NSA_CHECK(status == 0 && !found.empty(), "{}: no such file{}", pattern,
                pattern.empty() || pattern[0] != '/'
                    ? fmt::format(" (relative to {})", std::filesystem::current_path(ignored).string())
                    : "");
    }
    for (const std::string& file : found) {
      if (seen.insert(std::filesystem::weakly_canonical(file, ignored).string()).second) files.push_back(file);
    }
  }
  return files;
}

}  // namespace nsa::data
