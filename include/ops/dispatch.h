// The only place that chooses a backend: NSA_DISPATCH(dev, rmsnorm_forward, y, rstd, x, w, eps);
#pragma once

#include "core/check.h"
#include "core/device.h"
#include "core/profile.h"
#include "core/transfer.h"

#ifdef NSA_WITH_CUDA
#define NSA_BACKEND(dev, name, ...) \
  ((dev).where == ::nsa::Where::cuda ? ::nsa::cuda::name((dev), __VA_ARGS__) : ::nsa::cpu::name((dev), __VA_ARGS__))
#else
#define NSA_BACKEND(dev, name, ...)                                                                                 \
  ((dev).where == ::nsa::Where::cuda ? ::nsa::fail("{}: this binary was built without CUDA; use device=cpu", #name) \
                                     : ::nsa::cpu::name((dev), __VA_ARGS__))
#endif

#define NSA_DISPATCH(dev, name, ...)                                                                                \
  ::nsa::dispatch((dev), #name,                                                                                     \
                  [](::nsa::Device& device, const auto&... arguments) { NSA_BACKEND(device, name, arguments...); }, \
                  __VA_ARGS__)

namespace nsa {

inline double tensor_bytes(const Tensor& t) { return static_cast<double>(t.bytes()); }
template <class Scalar>
double tensor_bytes(const Scalar&) {
  return 0;
}

inline void check_place(const Device& dev, const char* op, const Tensor& t) {
  NSA_CHECK(!t.data || t.where == dev.where, "{}: an argument {} lives on {}, the op runs on {}: upload it first", op,
            t.shape.str(), name_of(t.where), name_of(dev.where));
}
template <class Scalar>
void check_place(const Device&, const char*, const Scalar&) {}

/// Calls the backend, timed when Device::profile is set: the device is idle at both ends.
template <class Backend, class... Arguments>
void dispatch(Device& dev, const char* name, Backend backend, const Arguments&... arguments) {
  (check_place(dev, name, arguments), ...);
  if (!dev.profile) return backend(dev, arguments...);
  synchronise(dev);
  const OpTimer timer(*dev.profile, name, (tensor_bytes(arguments) + ...));
  backend(dev, arguments...);
  synchronise(dev);
}

}  // namespace nsa
