// Benchmarks: median time of many runs, useful FLOPs (model/flops.h) per second, and the share of the FMA peak and
// memory bandwidth measured in the same run.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/peak.h"
#include "train/config.h"

namespace nsa {

struct BenchRow {
  std::string name;   ///< op, or what is left
  double ms = 0;      ///< per step
  double calls = 0;   ///< per step
  double gflop = 0;   ///< useful, per step; 0: not counted
  double gbytes = 0;  ///< per step, of the tensors its calls were given, each once: the least that must move when
                      ///< nothing stays in a cache
};

struct TrainBench {
  double ms_best = 0, ms_median = 0;
  double tokens = 0, gflop = 0, gbytes = 0;  ///< per step
  std::vector<BenchRow>
      ops;  ///< sorted by time; the last row is what no op accounts for, so that all add up to the profiled step
  double ms_profiled = 0;
  Peak peak;
};

/// Whole optimizer steps of a config on random tokens: `repeat` timed ones after one to warm up, one more with the
/// profile on.
TrainBench bench_train(const Config& config, int repeat);

struct AttentionSizes {
  AttentionConfig attention;  ///< type, heads, head dims and NSA block sizes
  std::int64_t T = 0;
  DType type = DType::f32;
};
struct AttentionBench {
  std::string type, pass;  ///< "full" | "nsa"; "forward" | "backward"
  std::int64_t T = 0;
  double ms = 0, ms_best = 0;  ///< median and least
  double gflop = 0, gbytes = 0;
  std::vector<BenchRow> ops;
};

/// The attention ops alone (no projections), one sequence of random q, k, v: forward, and backward when asked. For
/// "nsa" this is the compression branch, scores and selection, selected branch, window branch and gates; compressing
/// keys and values is part of it.
std::vector<AttentionBench> bench_attention(const AttentionSizes& sizes, bool backward, int threads, int repeat);

/// FLOPs of the operations useful in attention: forward, backward = 2 x forward (dP, dV, dK, dQ; recomputing the scores
/// counts nothing).
double attention_gflop(const AttentionSizes& sizes);

}  // namespace nsa
