// May this config go on from that checkpoint?
#pragma once

#include <string>
#include <vector>

#include "train/checkpoint.h"
#include "train/run.h"

namespace nsa {

/// Compares the config saved with the checkpoint with the one given now. Free to change: micro_batch, recompute, eval,
/// checkpoint, log, device, threads. The model never; data with force_data; schedule, batch, optimizer with
/// force_schedule: otherwise throws one sentence naming each difference (old -> new) and the option that allows it.
/// What was forced comes back as warnings.
std::vector<std::string> check_resume(const Config& now, const TrainState& state, std::uint64_t data_fingerprint,
                                      const std::string& checkpoint, const RunOptions& options);

}  // namespace nsa
