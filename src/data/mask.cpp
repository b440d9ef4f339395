#include "data/mask.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>

#include "core/check.h"
#include "core/file.h"

namespace nsa::data {
namespace {

constexpr std::array<char, 8> kMagic{'N', 'S', 'A', 'M', 'A', 'S', 'K', '\n'};

struct Header {
  std::array<char, 8> magic = kMagic;
  std::uint64_t version = 1, tokens = 0, counted = 0, fingerprint = 0, zero = 0;
};
static_assert(sizeof(Header) == 48);

constexpr const char* kCure = "make it anew, or remove it to learn from every token of the shard";

std::int64_t bytes_for(std::int64_t tokens) { return (tokens + 7) / 8; }

}  // namespace

std::string mask_of(const std::string& shard) { return shard + ".mask"; }

Mask::Mask(const MappedFile& shard, std::int64_t tokens) : file_("mask", mask_of(shard.path())), tokens_(tokens) {
  const std::string& path = file_.path();
  Header header;
  NSA_CHECK(file_.size() >= sizeof(header), "mask {}: truncated: {} bytes, but its header alone takes {}", path,
            file_.size(), sizeof(header));
  file_.copy(&header, 0, sizeof(header));
  NSA_CHECK(header.magic == kMagic, "mask {}: this is no mask of a shard (docs/masks.md); {}", path, kCure);
  NSA_CHECK(header.version == 1, "mask {}: of version {}, but only 1 is known", path, header.version);
  NSA_CHECK(header.tokens == static_cast<std::uint64_t>(tokens),
            "mask {}: of a shard of {} tokens, but {} has {}: they do not belong together; {}", path, header.tokens,
            shard.path(), tokens, kCure);
  const std::uint64_t size = sizeof(header) + static_cast<std::uint64_t>(bytes_for(tokens));
  NSA_CHECK(file_.size() == size, "mask {}: {}: {} tokens need {} bytes, but the file has {}", path,
            file_.size() < size ? "truncated" : "too long", tokens, size, file_.size());
  NSA_CHECK(header.fingerprint == shard.fingerprint(),
            "mask {}: of another shard ({:016x}) than {} ({:016x}), or that was changed; {}", path, header.fingerprint,
            shard.path(), shard.fingerprint(), kCure);
  NSA_CHECK(header.counted <= header.tokens, "mask {}: its header says that {} of {} tokens count: damaged", path,
            header.counted, header.tokens);
  counted_ = static_cast<std::int64_t>(header.counted);
}

/// The bytes that hold the bits of these tokens.
std::vector<unsigned char> Mask::bytes_of(std::int64_t begin, std::int64_t n) const {
  const std::int64_t first = begin / 8, last = bytes_for(begin + n);
  std::vector<unsigned char> bytes(static_cast<std::size_t>(last - first));
  file_.copy(bytes.data(), sizeof(Header) + static_cast<std::size_t>(first), bytes.size());
  return bytes;
}

std::int64_t Mask::count(std::int64_t begin, std::int64_t n) const {
  if (n == 0) return 0;
  std::vector<unsigned char> bytes = bytes_of(begin, n);
  bytes.front() &= static_cast<unsigned char>(0xFF << begin % 8);
  if (const std::int64_t rest = (begin + n) % 8) bytes.back() &= static_cast<unsigned char>((1 << rest) - 1);
  std::int64_t count = 0;
  for (const unsigned char byte : bytes) count += std::popcount(byte);
  return count;
}

std::int64_t Mask::apply(std::int64_t begin, std::int64_t n, std::int32_t* targets) const {
  if (n == 0) return 0;
  const std::vector<unsigned char> bytes = bytes_of(begin, n);
  std::int64_t count = 0;
  for (std::int64_t i = 0; i < n; ++i) {
    const std::int64_t bit = begin % 8 + i;
    const bool counts = bytes[static_cast<std::size_t>(bit / 8)] >> bit % 8 & 1;
    if (!counts) targets[i] = -1;
    count += counts;
  }
  return count;
}

void Mask::check() const {
  constexpr std::int64_t kBlock = 1 << 23;
  std::int64_t found = 0;
  for (std::int64_t begin = 0; begin < tokens_; begin += kBlock)
    found += count(begin, std::min(kBlock, tokens_ - begin));
  NSA_CHECK(found == counted_, "mask {}: {} tokens count, but its header says {}: damaged", file_.path(), found,
            counted_);
}

void write_mask(const std::string& path, const MappedFile& shard, const std::vector<bool>& bits) {
  Header header;
  header.tokens = bits.size();
  header.counted = static_cast<std::uint64_t>(std::count(bits.begin(), bits.end(), true));
  header.fingerprint = shard.fingerprint();
  std::vector<unsigned char> bytes(static_cast<std::size_t>(bytes_for(static_cast<std::int64_t>(bits.size()))));
  for (std::size_t i = 0; i < bits.size(); ++i) bytes[i / 8] |= static_cast<unsigned char>(bits[i] << i % 8);
  OutputFile file(path);
  file.write(&header, sizeof(header));
  if (!bytes.empty()) file.write(bytes.data(), bytes.size());
  file.finish();
}

}  // namespace nsa::data
