// Says when a branch of NSA gives nothing to its layer's output, or the selection nothing but what chance would: such a
// run trains as if that part of NSA did not exist, and its loss does not tell.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "train/config.h"
#include "train/log.h"

namespace nsa {

/// A branch is silent while its share of the gated output (LayerLook::share) is below this: a hundredth is about one
/// unit in the last place of a bf16 sum.
inline constexpr double kSilentShare = 0.01;
/// The selection is blind while the selected blocks hold less than this more of the compression attention than blocks
/// drawn at random, as a share of what those miss. The best of evenly scored blocks are always a little above chance.
inline constexpr double kBlindGain = 0.01;
/// So many looks in a row, after warm-up: one may be chance.
inline constexpr int kSilentLooks = 5;

class Silence {
 public:
  explicit Silence(const Config& config) : config_(config) {}
  /// What is to be said after the look of a step: a sentence for each branch that has become silent and for a selection
  /// that has become blind, with all the layers in which it did so for the same reason. Nothing is said twice of a
  /// layer.
  std::vector<std::string> observe(std::int64_t step, const std::vector<LayerLook>& layers);

 private:
  struct Part {
    int looks = 0;  ///< silent ones in a row
    bool said = false;
  };
  Config config_;
  std::vector<std::array<Part, 4>> parts_;  // by layer: the branches, and the selection
};

}  // namespace nsa
