// A look at the branches of NSA, layer by layer, while a step runs: whether each of them takes part.
#pragma once

#include <cstdint>
#include <vector>

#include "model/gpt.h"
#include "train/config.h"
#include "train/log.h"

namespace nsa {

/// Every so many steps. Costs less than one forward pass of the branches; the steps between pay nothing.
inline constexpr std::int64_t kLookEvery = 10;

/// Where a look leaves its numbers: (L,9) f32 of dev.params, absent for full attention.
Tensor take_looks(Device& dev, const Config& config);
/// To be given to train_step: fills `looks` from what the blocks of one micro-batch have saved.
LookAtBlock look_at_branches(Device& dev, In looks, const Config& config);
/// The numbers, of every layer.
std::vector<LayerLook> looked(In looks, const Config& config);

}  // namespace nsa
