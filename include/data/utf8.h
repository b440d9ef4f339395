// UTF-8, strictly as in RFC 3629: no overlong forms, no surrogates, nothing above U+10FFFF.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace nsa::data {

/// Length of the longest valid prefix that ends on a character: text.size() when all of it is valid.
std::size_t utf8_valid_prefix(std::string_view text);

/// How many bytes at the end (0 to 3) begin a character that more bytes could complete.
std::size_t utf8_unfinished_tail(std::string_view text);

/// Appends the character with this number, at most 0x10FFFF and no surrogate.
void append_utf8(std::string& text, std::int32_t point);

/// 10xxxxxx: inside a character.
constexpr bool utf8_is_continuation(unsigned char byte) { return (byte & 0xC0) == 0x80; }

}  // namespace nsa::data
