// From which checkpoint does a run go on, and what is there when it could not save another.
#pragma once

#include <string>
#include <vector>

#include "train/checkpoint.h"

namespace nsa {

/// The newest usable checkpoint; path empty for a run that never saved one. Throws, with nothing changed, when there
/// are checkpoints but none can be used, naming each and its fault, and when metrics.jsonl tells of one but none is
/// there: to start over is for the user to ask. Sentences about single ones passed over go to `warnings`.
CheckpointFile checkpoint_to_go_on_from(const std::string& run_dir, int threads, std::vector<std::string>& warnings);

/// "the newest good checkpoint is PATH", or that there is none: for the sentence of a save that failed.
std::string newest_on_disk(const std::string& run_dir);

}  // namespace nsa
