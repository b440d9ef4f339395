// Where ops run and what they take memory from. The first argument of every op.
#pragma once

#include <memory>
#include <string>

#include "core/arena.h"

namespace nsa {

struct Profile;

/// What start-up tells of a device.
struct DeviceProperties {
  std::string name;        ///< "AMD Ryzen 7 5700X, 2 cores"
  std::size_t memory = 0;  ///< bytes free when it was opened; 0: unknown
};

struct Device {
  Where where = Where::cpu;
  DeviceProperties properties;
  int threads = 1;                ///< CPU threads an op (or host work beside it) may use; no result depends on it
  Arena params;                   ///< weights, gradients, optimizer state, constants
  Arena work;                     ///< activations and scratch
  Profile* profile = nullptr;     ///< set: every op adds its time there (core/profile.h)
  std::shared_ptr<void> backend;  ///< what the backend keeps between calls, made by its first op (ops/cpu/backend.h)

  /// Memory for a whole run, once; nothing grows after this. Throws with the bytes needed and the bytes available.
  void reserve(std::size_t params_bytes, std::size_t work_bytes);

  /// True while only shapes and bytes are wanted. EVERY backend function takes its scratch first and then returns if
  /// planning:
  ///     ArenaScope scope(dev.work);
  ///     Tensor scratch = dev.scratch({rows, C});
  ///     if (dev.planning()) return;
  bool planning() const { return work.planning(); }
  /// float scratch inside the caller's ArenaScope
  Tensor scratch(const Shape& dims, DType dtype = DType::f32) { return work.take(dtype, dims, Purpose::scratch); }
};

/// Cores this process may use (affinity mask and the quotas of its control groups), at least 1.
int available_cores();

}  // namespace nsa
