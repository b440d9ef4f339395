// Which select blocks a query chooses among (NSA.md step 7): blocks [0, init) and (c - local, c], clipped to [0, c],
// are forced; the free ones lie between.
#pragma once

#include <algorithm>
#include <cstdint>

#include "nsa/nsa.h"

namespace nsa::cpu {

struct Candidates {
  std::int64_t current, first_free, last_free;  ///< free blocks [first_free, last_free)
  Candidates(const NsaShape& geometry, std::int64_t t)
      : current(t / geometry.l_sel),
        first_free(std::min(geometry.init, current + 1)),
        last_free(std::max(first_free, current + 1 - geometry.local)) {}
  std::int64_t free() const { return last_free - first_free; }
  std::int64_t forced() const { return current + 1 - free(); }
  /// How many of the free ones are taken, of n in all.
  std::int64_t taken(std::int64_t n) const { return std::clamp<std::int64_t>(n - forced(), 0, free()); }
};

}  // namespace nsa::cpu
