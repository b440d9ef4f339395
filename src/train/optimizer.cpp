#include "train/optimizer.h"

#include <algorithm>
#include <cmath>

namespace nsa {

double clip_factor(double norm, double clip) { return clip > 0 ? std::min(1.0, clip / (norm + 1e-6)) : 1.0; }

void adamw_step(Device& dev, const Params& params, const OptimizerConfig& config, double lr, std::int64_t t,
                double grad_scale) {
  AdamWStep step;
  step.lr = static_cast<float>(lr);
  step.beta1 = static_cast<float>(config.beta1);
  step.beta2 = static_cast<float>(config.beta2);
  step.rest1 = static_cast<float>(1.0 - config.beta1);
  step.rest2 = static_cast<float>(1.0 - config.beta2);
  step.eps = static_cast<float>(config.eps);
  step.grad_scale = static_cast<float>(grad_scale);
  step.m_scale = static_cast<float>(1.0 / (1.0 - std::pow(config.beta1, static_cast<double>(t))));
  step.v_scale = static_cast<float>(1.0 / (1.0 - std::pow(config.beta2, static_cast<double>(t))));
  step.weight_decay = static_cast<float>(config.weight_decay);
  const Params::Slabs& s = params.slabs();
  op::adamw(dev, s.master, s.m, s.v, s.copy, s.grad, s.ranges, step);
}

}  // namespace nsa
