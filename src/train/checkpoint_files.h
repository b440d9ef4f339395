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

/// How much is read to judge a checkpoint: the manifest and file sizes, or every byte.
enum class Depth { sizes, checksums };
/// Why the folder is not a complete checkpoint of `step`; "" when it is.
std::string complaint(const std::string& folder, std::int64_t step, Depth depth);

}  // namespace nsa
