// How work is cut into pieces for core/parallel.h: by bytes, never by the number of threads.
#pragma once

#include <algorithm>
#include <cstdint>

namespace nsa::cpu {

/// Elements in a piece of element-wise work: 64 KiB of floats, some microseconds.
constexpr std::int64_t kPiece = 16384;

/// Rows of C elements that make about one piece, at least 1.
constexpr std::int64_t rows_per_piece(std::int64_t C) {
  return std::max<std::int64_t>(1, kPiece / std::max<std::int64_t>(1, C));
}

}  // namespace nsa::cpu
