// Who chose a block: per (group, segment of queries, block) the ascending list of its queries, built by counting.
// Segments make work of the selected branch: at most 31, so that the index stays O(T n) and a list is long enough to
// fill tiles (about 2 l' queries on average, whatever T) even with one head in a group.
#pragma once

#include "nsa/cpu/branch.h"

namespace nsa::cpu {

struct Segments {
  std::int64_t blocks;   ///< blocks in a segment
  std::int64_t count;    ///< segments in a sequence
  std::int64_t queries;  ///< queries in a segment, the last may be short
  explicit Segments(const BranchDims& dims)
      : blocks(std::max<std::int64_t>(1, (dims.blocks + 30) / 31)),
        count((dims.blocks + blocks - 1) / blocks),
        queries(blocks * dims.block) {}
  std::int64_t begin(std::int64_t s) const { return s * queries; }
  std::int64_t end(std::int64_t s, std::int64_t T) const { return std::min(T, (s + 1) * queries); }
};

struct InverseIndex {
  Segments segments;
  std::int64_t blocks, T, n;
  std::int32_t *lists,
      *offsets;  ///< (groups,T,n) and (groups,segments,blocks+1); offsets count from the segment's first list element

  InverseIndex(Device& dev, const BranchDims& dims, std::int64_t n_)
      : segments(dims), blocks(dims.blocks), T(dims.T), n(n_) {
    lists = dev.scratch({dims.groups(), T, n}, DType::i32).raw<std::int32_t>();
    offsets = dev.scratch({dims.groups(), segments.count, blocks + 1}, DType::i32).raw<std::int32_t>();
  }

  struct List {
    const std::int32_t* t;
    std::int64_t size;
  };
  /// Queries of segment s that chose block j
  List list(std::int64_t bh, std::int64_t s, std::int64_t j) const {
    const std::int32_t* at = offsets + (bh * segments.count + s) * (blocks + 1) + j;
    return {lists + (bh * T + segments.begin(s)) * n + at[0], at[1] - at[0]};
  }

  /// Whether all queries of segment s that see block j chose it.
  bool all_chose(std::int64_t bh, std::int64_t s, std::int64_t j, std::int64_t block) const {
    return list(bh, s, j).size == segments.end(s, T) - std::max(segments.begin(s), j * block);
  }

  /// selected (B,Hkv,T,n)
  void build_segment(std::int64_t bh, std::int64_t s, const std::int32_t* selected) const {
    std::int32_t* offset = offsets + (bh * segments.count + s) * (blocks + 1);
    std::int32_t* list = lists + (bh * T + segments.begin(s)) * n;
    const std::int64_t t0 = segments.begin(s), t1 = segments.end(s, T);
    const auto each = [&](auto&& f) {
      for (std::int64_t t = t0; t < t1; ++t)
        for (std::int64_t i = 0; i < n; ++i)
          if (const std::int32_t j = selected[(bh * T + t) * n + i]; j >= 0) f(static_cast<std::int32_t>(t), j);
    };
    std::fill_n(offset, blocks + 1, 0);
    each([&](std::int32_t, std::int32_t j) { ++offset[j + 1]; });
    for (std::int64_t j = 0; j < blocks; ++j) offset[j + 1] += offset[j];
    each([&](std::int32_t t, std::int32_t j) { list[offset[j]++] = t; });  // afterwards offset[j] is where j + 1 begins
    std::copy_backward(offset, offset + blocks, offset + blocks + 1);
    offset[0] = 0;
  }
};

}  // namespace nsa::cpu
