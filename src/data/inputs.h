// Which of the files given are text, and of which kind.
#pragma once

#include <string>

#include "data/content.h"
#include "data/corpus.h"

namespace nsa::data {

/// A named file is plain text or JSONL. Throws naming it and what it is instead.
TextFormat format_of(const std::string& path, const Content& content);

}  // namespace nsa::data
