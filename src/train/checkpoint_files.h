// The files inside one checkpoint folder: model and optimizer tensors, state.json, manifest.json. checkpoint.cpp moves
// the folders.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "train/checkpoint.h"

namespace nsa {

/// Writes and fsyncs every file into the existing `folder`, the manifest last, then the folder. Checksums are taken of
/// the bytes as they are written.
void write_checkpoint_files(const std::string& folder, const TrainState& state, const std::vector<NamedTensor>& weights,
                            const std::vector<NamedTensor>& optimizer);

/// Why the folder is not a complete checkpoint of `step`; "" when it is. In a forked process OpenMP threads would never
/// start: there `threads` is 1.
std::string complaint(const std::string& folder, std::int64_t step, Depth depth, int threads);

}  // namespace nsa
