// May this config go on from that checkpoint?
#pragma once

#include <string>
#include <vector>

#include "train/checkpoint.h"
#include "train/inputs.h"
#include "train/run.h"

namespace nsa {

/// Compares the config saved with the checkpoint, read by the rules of the version that wrote it, with the one given
/// now. Free to change: micro_batch, recompute, eval, checkpoint, log, device, threads, where the data lie, and what
/// the model does not use (NSA's fields with full attention). The model never; data with force_data; precision with
/// force_precision; schedule, batch, optimizer with force_schedule: otherwise throws one sentence naming each
/// difference (old -> new) and the option that allows it. Comes back as warnings: what was forced, and what of an old
/// config could not be read and is therefore not compared.
std::vector<std::string> check_resume(const Config& now, const TrainState& state, const DataIdentity& data,
                                      const std::string& checkpoint, const RunOptions& options);

}  // namespace nsa
