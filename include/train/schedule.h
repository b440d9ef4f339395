// The learning rate of every step, a pure function of the step: nothing to save, the same after a resume.
#pragma once

#include <cstdint>

#include "train/config.h"

namespace nsa {

/// Learning rate of step `step` (0-based, about to be done) of `total`. Linear warm-up: step s < W uses lr (s+1)/W, so
/// the first step already learns and step W-1 reaches lr. Then, with min = min_lr_ratio * lr and lr at step W:
///   cosine    half a cosine from lr at step W to min at the last step
///   linear    a line between the same two points
///   wsd       lr, then a line over the last round(decay_fraction * total) steps that ends at min
///   constant  lr
double learning_rate(const ScheduleConfig& schedule, double lr, std::int64_t step, std::int64_t total);

}  // namespace nsa
