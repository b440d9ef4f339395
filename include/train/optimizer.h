// AdamW over all parameters (arXiv 1711.05101): decoupled decay on matrices, gradients scaled by the global-norm clip
// factor inside the same pass.
#pragma once

#include <cstdint>

#include "model/gpt.h"
#include "train/config.h"

namespace nsa {

/// min(1, clip / (norm + 1e-6)); 1 when clip is 0.
double clip_factor(double norm, double clip);
/// One update with everything in `config` but the learning rate, which is the schedule's. `t` counts updates from 1
/// (bias correction).
void adamw_step(Device& dev, const Params& params, const OptimizerConfig& config, double lr, std::int64_t t,
                double grad_scale);

}  // namespace nsa
