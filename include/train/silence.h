// Says when a branch of NSA gives nothing to its layer's output: such a run trains as if the branch did not exist, and
// its loss does not tell.
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
/// So many looks in a row, after warm-up: one may be chance.
inline constexpr int kSilentLooks = 5;

class Silence {
 public:
  explicit Silence(const Config& config) : config_(config) {}
  /// What is to be said after the look of a step: a sentence for each branch that has become silent, with all the
  /// layers in which it did so for the same reason. Every layer's branch is named once.
  std::vector<std::string> observe(std::int64_t step, const std::vector<LayerLook>& layers);

 private:
  struct Branch {
    int looks = 0;  ///< silent ones in a row
    bool said = false;
  };
  Config config_;
  std::vector<std::array<Branch, 3>> branches_;  // by layer
};

}  // namespace nsa
