// Plain arguments of ops that are more than a number.
#pragma once

#include <cstdint>

namespace nsa {

/// Parameters begin at multiples of so many elements in their slabs.
inline constexpr std::int64_t kAdamWRange = 64;

/// One AdamW step; everything that depends on the step number is already in it.
struct AdamWStep {
  float lr = 0, beta1 = 0.9f, beta2 = 0.95f, eps = 1e-8f, weight_decay = 0;
  float rest1 = 0.1f, rest2 = 0.05f;  ///< 1 - beta1, 1 - beta2, taken in double: 1 - 0.999f has four digits left
  float grad_scale = 1;               ///< clip factor: min(1, clip / (norm + 1e-6))
  float m_scale = 1;                  ///< 1 / (1 - beta1^t)
  float v_scale = 1;                  ///< 1 / (1 - beta2^t)
};

}  // namespace nsa
