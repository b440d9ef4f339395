// The bytes a run takes, found by running its code over arenas without memory (core/arena.h).
#pragma once

#include <array>
#include <cstddef>

#include "train/config.h"
#include "train/log.h"

namespace nsa {

struct ArenaPlan {
  std::size_t bytes = 0;
  std::array<std::size_t, static_cast<std::size_t>(Purpose::count)>
      by_purpose{};  ///< at the moment of the peak; adds up to bytes
};
struct MemoryPlan {
  ArenaPlan params, work;
  std::size_t bytes() const { return params.bytes + work.bytes; }
};

/// Training steps, validation and samples of this config on its device.
MemoryPlan plan_memory(const Config& config);
/// Its weights, and forward passes of one sequence of up to data.sequence_length tokens (generation).
MemoryPlan plan_generation(const Config& config);

/// Rows of the start-up tables.
std::vector<MemoryRow> memory_rows(const MemoryPlan& plan);
std::vector<ParameterRow> parameter_rows(const Params& params);
/// `padding`: rows of the vocabulary that no token has.
std::vector<std::pair<std::string, std::string>> config_rows(const Config& config, std::int64_t padding);

}  // namespace nsa
