// Kernels of two element types. HWY_EXPORT takes no templates: a kernel is a template with two exported wrappers,
// NAME_f32 and NAME_bf16, and NSA_KERNEL(T, NAME) is the one for T, of this CPU's target.
#pragma once

#include <type_traits>

#include "core/dtype.h"

namespace nsa::cpu {

template <class T, class F32, class BF16>
constexpr auto instance(F32 f32, BF16 bf16_) {
  if constexpr (std::is_same_v<T, float>) {
    return f32;
  } else {
    return bf16_;
  }
}

}  // namespace nsa::cpu

#define NSA_KERNEL(T, name) ::nsa::cpu::instance<T>(HWY_DYNAMIC_DISPATCH(name##_f32), HWY_DYNAMIC_DISPATCH(name##_bf16))
