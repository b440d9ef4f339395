#include "train/schedule.h"

#include <algorithm>
#include <cmath>

namespace nsa {

namespace {

/// Share of the way from `begin` to `end`, in [0, 1]; a way of no length has been gone.
double progress(double step, double begin, double end) {
  return end > begin ? std::clamp((step - begin) / (end - begin), 0.0, 1.0) : 1.0;
}

}  // namespace

double learning_rate(const ScheduleConfig& schedule, double lr, std::int64_t step, std::int64_t total) {
  const double s = static_cast<double>(step), last = static_cast<double>(total - 1),
               warmup = static_cast<double>(schedule.warmup_steps);
  if (step < schedule.warmup_steps) return lr * (s + 1) / warmup;
  const double min = schedule.min_lr_ratio * lr;
  switch (schedule.type) {
    case ScheduleType::cosine:
      return min + (lr - min) * 0.5 * (1 + std::cos(3.14159265358979323846 * progress(s, warmup, last)));
    case ScheduleType::linear: return lr + (min - lr) * progress(s, warmup, last);
    case ScheduleType::wsd: {
      const double decay = std::round(schedule.decay_fraction * static_cast<double>(total));
      return decay < 1 ? lr : lr + (min - lr) * progress(s, last - decay, last);
    }
    case ScheduleType::constant: return lr;
  }
  return lr;
}

}  // namespace nsa
