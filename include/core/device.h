// Where ops run and what they take memory from. The first argument of every op.
#pragma once

#include <memory>

#include "core/arena.h"

namespace nsa {

struct GemmCache;  // src/ops/cpu/onednn_gemm.cpp

enum class Where { cpu, cuda };

struct Profile;

struct Device {
  Where where = Where::cpu;
  int threads = 1;                   ///< CPU threads an op may use; no result depends on it
  Arena params;                      ///< weights, gradients, optimizer state, constants
  Arena work;                        ///< activations and scratch
  Profile* profile = nullptr;        ///< set: every op adds its time there (core/profile.h)
  std::shared_ptr<GemmCache> gemms;  ///< CPU matmul primitives kept between calls; made by the first matmul

  /// True while only shapes and bytes are wanted. EVERY backend function takes its scratch first and then returns if
  /// planning:
  ///     ArenaScope scope(dev.work);
  ///     Tensor scratch = dev.scratch({rows, C});
  ///     if (dev.planning()) return;
  bool planning() const { return work.planning(); }
  /// float scratch inside the caller's ArenaScope
  Tensor scratch(const Shape& dims, DType dtype = DType::f32) { return work.take(dtype, dims, Purpose::scratch); }
};

/// Cores this process may use (affinity mask and cgroup quota), at least 1.
int available_cores();

}  // namespace nsa
