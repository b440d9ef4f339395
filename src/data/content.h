// What a file is, by its first bytes and not by its name.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace nsa::data {

constexpr std::size_t kHeadBytes = 1 << 16;  ///< enough to tell

/// "a PNG image", "xz-compressed data", ... when the first bytes are the mark of a format that is neither text nor
/// tokens; else "".
std::string known_format(std::string_view head);

struct Content {
  enum class Kind { empty, text, json_lines, json_document, checksums, pointer, binary } kind = Kind::text;
  std::string what;  ///< of the last four, in words: "a PNG image"
};
/// `head`: the first bytes, unpacked; `whole`: the file has no more.
Content content_of(std::string_view head, bool whole);

}  // namespace nsa::data
