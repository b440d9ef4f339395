// From a config to the device it asks for.
#pragma once

#include <string>

#include "core/device.h"
#include "train/config.h"

namespace nsa {

/// CPU threads a config asks for.
int cpu_threads(const Config& config);

/// The only place that chooses a device. Throws (exit code 2) when this binary cannot compute there.
Device make_device(const Config& config);
Device make_device(DeviceType type, int threads);

/// The type its ops compute in.
DType compute_type(const Config& config);
/// The same in words, for the start table: "bf16", and what the device makes of it.
std::string precision_in_words(const Config& config);

}  // namespace nsa
