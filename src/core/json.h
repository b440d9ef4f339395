// JSON text into a tree, stricter than the library's own parser: a key that appears twice is an error, and every error
// names the file and the line.
#pragma once

#include <cstdint>
#include <map>
#include <nlohmann/json.hpp>
#include <string>

#include "core/check.h"

namespace nsa {

enum class Comments { refuse, allow };

/// Where each key stands: dotted path ("train.optimizer.lr"; members of arrays have none) -> line, from 1.
using KeyLines = std::map<std::string, std::int64_t>;

/// Parses the whole text. `origin` (a path) names it in errors, which carry `code`. Nesting deeper than 64 is refused.
nlohmann::json parse_json(const std::string& text, const std::string& origin, Comments comments, Exit code,
                          KeyLines* lines = nullptr);

/// False for text that JSON cannot hold.
bool is_utf8(const std::string& text);

}  // namespace nsa
