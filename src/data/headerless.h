// Is a file without a header uint16 tokens? Almost any bytes can be read as such, so it is asked what speaks against.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace nsa::data {

/// What the file is instead, by its first bytes, whatever the vocabulary: "text", "a JPEG image"; or "".
std::string foreign_content(std::string_view head);

/// What is wrong with them as tokens of this vocabulary, to be read after "as uint16 tokens"; "" when nothing is.
std::string unlike_tokens(const std::vector<std::uint16_t>& tokens, std::int64_t vocab_size);

}  // namespace nsa::data
