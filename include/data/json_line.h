// JSON as far as a corpus needs it: one string out of an object, and whether bytes look like JSON. A whole parser
// would refuse a line for what nobody reads: half a surrogate pair in a title, NaN, 1e999 (its numbers have a range).
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace nsa::data {

/// The string under `field` ("text", or "a.b" for the b in object a) of the object on this line. False, with the reason
/// in `why`, when there is none or the line is not one JSON object. Other fields need only be skippable.
bool text_of_line(std::string_view line, std::string_view field, std::string& text, std::string& why);

enum class JsonStart {
  none,     ///< not the beginning of a JSON object (or array)
  partial,  ///< the bytes end inside it
  whole
};
/// What stands at the beginning of `bytes`, after white space; `size`: bytes up to its end (if whole).
JsonStart json_at(std::string_view bytes, std::size_t& size);

}  // namespace nsa::data
