#include "data/utf8.h"

#include <algorithm>
#include <cstdint>
#include <cstring>

namespace nsa::data {
namespace {

/// Bytes of the character that `lead` opens; 0 when it cannot open one.
int length_of(unsigned char lead) {
  if (lead < 0x80) return 1;
  if (lead < 0xC2) return 0;  // continuation, or an overlong form of ASCII
  if (lead < 0xE0) return 2;
  if (lead < 0xF0) return 3;
  return lead < 0xF5 ? 4 : 0;
}

/// The second byte is where overlong forms, surrogates and values above U+10FFFF show.
bool second_is_valid(unsigned char lead, unsigned char second) {
  switch (lead) {
    case 0xE0: return second >= 0xA0 && second <= 0xBF;
    case 0xED: return second >= 0x80 && second <= 0x9F;
    case 0xF0: return second >= 0x90 && second <= 0xBF;
    case 0xF4: return second >= 0x80 && second <= 0x8F;
    default: return utf8_is_continuation(second);
  }
}

/// Bytes of `s` (at most n) that belong to the character at its start, as far as they are there and right.
int matching(const unsigned char* s, std::size_t n, int length) {
  if (length < 2 || n < 2) return 1;
  if (!second_is_valid(s[0], s[1])) return 1;
  int have = 2;
  while (have < length && static_cast<std::size_t>(have) < n && utf8_is_continuation(s[have])) ++have;
  return have;
}

}  // namespace

std::size_t utf8_valid_prefix(std::string_view text) {
  const auto* s = reinterpret_cast<const unsigned char*>(text.data());
  const std::size_t n = text.size();
  std::size_t i = 0;
  while (i < n) {
    if (s[i] < 0x80) {
      std::uint64_t word;
      while (i + 8 <= n && (std::memcpy(&word, s + i, 8), (word & 0x8080808080808080ull) == 0)) i += 8;
      while (i < n && s[i] < 0x80) ++i;
      continue;
    }
    const int length = length_of(s[i]);
    if (length == 0 || matching(s + i, n - i, length) < length) return i;
    i += static_cast<std::size_t>(length);
  }
  return n;
}

std::size_t utf8_unfinished_tail(std::string_view text) {
  const auto* s = reinterpret_cast<const unsigned char*>(text.data());
  const std::size_t n = text.size();
  for (std::size_t tail = 1; tail <= std::min<std::size_t>(3, n); ++tail) {
    const unsigned char lead = s[n - tail];
    if (utf8_is_continuation(lead)) continue;
    const int length = length_of(lead);
    const bool unfinished =
        length > static_cast<int>(tail) && matching(s + n - tail, tail, length) == static_cast<int>(tail);
    return unfinished ? tail : 0;
  }
  return 0;
}

void append_utf8(std::string& text, std::int32_t point) {
  const auto put = [&](std::int32_t byte) { text += static_cast<char>(byte); };
  if (point < 0x80) return put(point);
  if (point < 0x800) {
    put(0xC0 | point >> 6);
  } else if (point < 0x10000) {
    put(0xE0 | point >> 12);
    put(0x80 | (point >> 6 & 0x3F));
  } else {
    put(0xF0 | point >> 18);
    put(0x80 | (point >> 12 & 0x3F));
    put(0x80 | (point >> 6 & 0x3F));
  }
  put(0x80 | (point & 0x3F));
}

}  // namespace nsa::data
