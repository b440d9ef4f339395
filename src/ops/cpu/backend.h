// What only the CPU backend keeps between calls.
#pragma once

#include <memory>

#include "core/device.h"

namespace nsa::cpu {

struct GemmCache;  // onednn_gemm.cpp

struct Backend {
  std::shared_ptr<GemmCache> gemms;  ///< products' primitives, made by the first product
};

inline Backend& backend_of(Device& dev) {
  if (!dev.backend) dev.backend = std::make_shared<Backend>();
  return *static_cast<Backend*>(dev.backend.get());
}

}  // namespace nsa::cpu
