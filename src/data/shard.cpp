#include "data/shard.h"

#include <fcntl.h>
#include <glob.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <set>
#include <string_view>

#include "core/check.h"
#include "core/file.h"
#include "core/guarded_copy.h"
#include "data/content.h"
#include "data/headerless.h"

namespace nsa::data {
namespace {

constexpr std::size_t kHeaderBytes = 1024;  // 256 int32, in every layout that has a header
constexpr std::string_view kBinTok("BIN.TOK\n", 8);

std::int32_t header_word(const unsigned char* map, std::size_t i) {
  std::int32_t word;
  std::memcpy(&word, map + 4 * i, 4);
  return word;
}

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

// The page in which a shortened file ends stays mapped beyond its end and reads as zeros, which are tokens. Another
// file under the same name does not matter: the map is still of the old one.
bool Shard::reaches(std::size_t end) const {
  struct stat now {};
  return ::stat(path_.c_str(), &now) != 0 || now.st_ino != inode_ || static_cast<std::size_t>(now.st_size) >= end;
}

void Shard::copy(void* to, const unsigned char* from, std::size_t bytes) const {
  NSA_CHECK(guarded_copy(to, from, bytes) && reaches(static_cast<std::size_t>(from - map_) + bytes),
            "shard {}: had {} bytes when it was opened and no longer has bytes {} to {}: it was made shorter "
            "meanwhile, or its disk cannot be read",
            path_, size_, from - map_, from - map_ + static_cast<std::ptrdiff_t>(bytes));
}

void Shard::no_header() {
  width_ = headerless_ == Headerless::uint32 ? 4 : 2;
  format_ = width_ == 4 ? ShardFormat::raw_u32 : ShardFormat::raw_u16;
  data_ = map_;
  tokens_ = static_cast<std::int64_t>(size_) / width_;
  if (headerless_ == Headerless::guess) {
    std::string head(std::min(size_, kHeadBytes), '\0');
    copy(head.data(), map_, head.size());
    const std::string foreign = foreign_content(head);
    NSA_CHECK(foreign.empty(), "shard {}: this is {}, not token ids; the tool `tokenize` makes shards from text ({})",
              path_, foreign, kOverrule);
  }
  NSA_CHECK(size_ % static_cast<std::size_t>(width_) == 0,
            "shard {}: no known header and an odd size of {} bytes, so not headerless uint{} tokens either: "
            "truncated or not a shard",
            path_, size_, 8 * width_);
}

void Shard::check_guess(std::int64_t vocab_size) const {
  constexpr std::int64_t kFirst = 2 << 20;  // tokens
  if (format_ != ShardFormat::raw_u16 || headerless_ != Headerless::guess) return;
  std::vector<std::uint16_t> tokens(static_cast<std::size_t>(std::min(tokens_, kFirst)));
  copy(tokens.data(), data_, 2 * tokens.size());
  const std::string why = unlike_tokens(tokens, vocab_size);
  NSA_CHECK(why.empty(), "shard {}: no known header, and as headerless uint16 tokens {}: {}", path_, why, kOverrule);
}

void Shard::find_layout() {
  const auto check_version = [&](std::int32_t got, std::int32_t lowest, std::int32_t highest) {
    NSA_CHECK(got >= lowest && got <= highest, "shard {}: {} header with version {}, but only {}{} is known", path_,
              name_of(format_), got, lowest, highest > lowest ? fmt::format(" to {}", highest) : "");
  };
  const std::string_view magic(reinterpret_cast<const char*>(map_), std::min<std::size_t>(size_, kBinTok.size()));
  const std::int32_t first = size_ >= 4 ? header_word(map_, 0) : 0;
  if (magic == kBinTok) {
    format_ = ShardFormat::bin_tok;
  } else if (first == kMagicU16 || first == kMagicU32) {
    format_ = first == kMagicU16 ? ShardFormat::llmc_u16 : ShardFormat::llmc_u32;
  } else {
    return no_header();
  }
  NSA_CHECK(size_ >= kHeaderBytes, "shard {}: truncated: {} bytes, but its {} header alone takes {}", path_, size_,
            name_of(format_), kHeaderBytes);
  std::int64_t extra = 0;  // bytes allowed after the tokens
  if (format_ == ShardFormat::bin_tok) {
    check_version(header_word(map_, 2), 1, 2);
    NSA_CHECK(header_word(map_, 3) == 4, "shard {}: BIN.TOK with {} bytes per token, but only 4 is known", path_,
              header_word(map_, 3));
    tokens_ = header_word(map_, 4);
    if (header_word(map_, 2) == 2) header_vocab_ = header_word(map_, 5);
    if (header_word(map_, 2) == 2 && header_word(map_, 6) != 0)
      extra = tokens_ / 8 + tokens_ % 8;  // its loss mask, which is not used here
  } else {
    check_version(header_word(map_, 1), format_ == ShardFormat::llmc_u16 ? 1 : 7,
                  format_ == ShardFormat::llmc_u16 ? 1 : 7);
    tokens_ = header_word(map_, 2);
  }
  width_ = format_ == ShardFormat::llmc_u16 ? 2 : 4;
  data_ = map_ + kHeaderBytes;
  const std::int64_t expected = static_cast<std::int64_t>(kHeaderBytes) + tokens_ * width_,
                     size = static_cast<std::int64_t>(size_);
  NSA_CHECK(tokens_ >= 0, "shard {}: its header says {} tokens: damaged", path_, tokens_);
  NSA_CHECK(size >= expected,
            "shard {}: truncated: its header says {} tokens, which needs {} bytes, but the file has {}", path_, tokens_,
            expected, size);
  NSA_CHECK(size <= expected + extra,
            "shard {}: its header says {} tokens, which needs {} bytes, but the file has {}: the header was not "
            "completed, or two files were joined",
            path_, tokens_, expected, size);
}

Shard::Shard(const std::string& path, Headerless headerless) : path_(path), headerless_(headerless) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  NSA_CHECK(fd >= 0, "shard {}: cannot be opened: {}", path, std::strerror(errno));
  struct stat status {};
  const bool known = ::fstat(fd, &status) == 0;
  const bool regular = known && S_ISREG(status.st_mode);
  size_ = regular ? static_cast<std::size_t>(status.st_size) : 0;
  inode_ = known ? status.st_ino : 0;
  void* map = size_ ? ::mmap(nullptr, size_, PROT_READ, MAP_SHARED, fd, 0) : nullptr;
  const int reason = errno;
  ::close(fd);
  NSA_CHECK(regular, "shard {}: {}", path,
            known && S_ISDIR(status.st_mode) ? "this is a folder; name the files in it, as in folder/*.bin"
                                             : "not a regular file");
  NSA_CHECK(size_ > 0, "shard {}: empty file", path);
  NSA_CHECK(map != MAP_FAILED, "shard {}: cannot be mapped into memory: {}", path, std::strerror(reason));
  map_ = static_cast<const unsigned char*>(map);
  try {
    find_layout();
    info_ = read_side_car(path);
    if (info_) {
      NSA_CHECK(info_->tokens == tokens_,
                "shard {}: {} tokens, but its side-car {} says {}: they do not belong together", path, tokens_,
                side_car_of(path), info_->tokens);
    } else if (header_vocab_ > 0) {
      info_ = ShardInfo{.tokenizer = "", .vocab_size = header_vocab_, .tokens = tokens_};
    }
  } catch (...) {
    ::munmap(map, size_);  // the destructor does not run when a constructor throws
    throw;
  }
}

Shard::~Shard() {
  if (map_) ::munmap(const_cast<unsigned char*>(map_), size_);
}

Shard::Shard(Shard&& other) noexcept
    : path_(std::move(other.path_)),
      headerless_(other.headerless_),
      format_(other.format_),
      tokens_(other.tokens_),
      header_vocab_(other.header_vocab_),
      width_(other.width_),
      map_(std::exchange(other.map_, nullptr)),
      data_(other.data_),
      size_(other.size_),
      inode_(other.inode_),
      info_(std::move(other.info_)) {}

void Shard::read(std::int64_t begin, std::int64_t n, std::int32_t* out, std::int64_t vocab_size) const {
  NSA_CHECK(begin >= 0 && n >= 0 && begin <= tokens_ - n, "shard {}: tokens {} to {} asked for, but it has {}", path_,
            begin, begin + n, tokens_);
  copy(out, data_ + begin * width_, static_cast<std::size_t>(n * width_));
  const std::int64_t highest = width_ == 2 ? widen<std::uint16_t>(n, out) : widen<std::uint32_t>(n, out);
  if (n == 0 || highest < vocab_size) return;
  for (std::int64_t i = 0; i < n; ++i) {
    const std::int64_t token = static_cast<std::uint32_t>(out[i]);
    NSA_CHECK(token < vocab_size,
              "shard {}: token {} at offset {} is outside the vocabulary of {}: the shard was made with another "
              "tokenizer, or is damaged",
              path_, token, begin + i, vocab_size);
  }
}

std::uint64_t Shard::fingerprint() const {
  constexpr std::size_t kWhole = 1 << 20, kPage = 4096, kPages = 64;
  std::vector<unsigned char> sample(std::min(size_, kWhole));
  const std::unique_ptr<XXH3_state_t, decltype(&XXH3_freeState)> state(XXH3_createState(), XXH3_freeState);
  XXH3_64bits_reset(state.get());
  const auto update = [&](const unsigned char* from, std::size_t bytes) {
    copy(sample.data(), from, bytes);
    XXH3_64bits_update(state.get(), sample.data(), bytes);
  };
  const std::uint64_t size = size_;
  XXH3_64bits_update(state.get(), &size, sizeof(size));
  if (size_ <= kWhole) {
    update(map_, size_);
  } else {
    update(map_, kHeaderBytes);
    for (std::size_t i = 0; i < kPages; ++i) update(map_ + (size_ - kPage) * i / (kPages - 1), kPage);
  }
  return XXH3_64bits_digest(state.get());
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
