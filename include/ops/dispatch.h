// The only place that chooses a backend: NSA_DISPATCH(dev, rmsnorm_forward, y, rstd, x, w, eps);
#pragma once

#include "core/check.h"
#include "core/device.h"
#include "core/profile.h"

#ifdef NSA_WITH_CUDA
#define NSA_BACKEND(dev, name, ...) ((dev).where == ::nsa::Where::cuda ? ::nsa::cuda::name((dev), __VA_ARGS__) : ::nsa::cpu::name((dev), __VA_ARGS__))
#else
#define NSA_BACKEND(dev, name, ...)                                                                                    \
  ((dev).where == ::nsa::Where::cuda ? ::nsa::fail("{}: this binary was built without CUDA; use device=cpu", #name) \
                                     : ::nsa::cpu::name((dev), __VA_ARGS__))
#endif

#define NSA_DISPATCH(dev, name, ...)                    \
  do {                                                  \
    const ::nsa::OpTimer timer((dev).profile, #name);   \
    NSA_BACKEND(dev, name, __VA_ARGS__);                \
  } while (0)
