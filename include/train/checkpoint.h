// Checkpoints: runs/NAME/checkpoints/step_00000500/ = model.safetensors, optimizer-RRRR-of-WWWW.safetensors,
// state.json, manifest.json (DESIGN "Files"). Save: write into step_X.tmp-RUNID/, fsync each file, manifest (size and
// XXH3 of every file), fsync the folder, rename, fsync the parent; only then delete old ones. A kill at any point
// leaves the last complete one. Discovery trusts only a manifest whose files match; otherwise it says why and falls
// back. What cannot be deleted (NFS's .nfs files, another user's) stays and stops nothing.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/safetensors.h"

namespace nsa {

/// Everything of a run that is not a tensor. Saved as state.json.
struct TrainState {
  std::int64_t step = 0;             ///< optimizer steps done (skipped ones included)
  std::int64_t tokens = 0;           ///< tokens seen
  std::int64_t position = 0;         ///< loader: next global sequence index
  std::int64_t optimizer_steps = 0;  ///< updates applied: AdamW's t (skipped steps do not count)
  std::int64_t skipped = 0, skipped_in_row = 0;
  double seconds = 0;                               ///< wall-clock of training so far, over all launches
  std::vector<double> recent_losses, recent_norms;  ///< the outlier window, oldest first
  std::uint64_t data_fingerprint = 0;
  std::uint64_t tokenizer_hash = 0;  ///< of data.tokenizer; 0: none, or a state from before it was kept
  std::string config;                ///< the resolved config, as JSON text
};

struct CheckpointFile {
  std::string path;  ///< of the folder
  std::int64_t step = 0;
};

/// Saves and then deletes all but the newest `keep` complete ones. On failure (disk full, ...) removes its own
/// temporary and throws; older ones are untouched. When it returns the checkpoint is saved; what went less well comes
/// back as sentences: leftovers that cannot be deleted, a file system that does not sync folders.
std::vector<std::string> save_checkpoint(const std::string& run_dir, const TrainState& state,
                                         const std::vector<NamedTensor>& weights,
                                         const std::vector<NamedTensor>& optimizer, std::int64_t keep);

/// How much is read to judge a checkpoint: the manifest and file sizes, or every byte.
enum class Depth { sizes, checksums };

/// Newest checkpoint whose manifest holds, to this depth; path empty when there is none. For each one passed over, a
/// sentence in `warnings`. Throws when the folder is there but cannot be listed.
CheckpointFile find_checkpoint(const std::string& run_dir, std::vector<std::string>& warnings, int threads = 1,
                               Depth depth = Depth::checksums);

TrainState load_state(const CheckpointFile& checkpoint);
/// Copies the file's tensors into `targets`; every target must be there with the same dims and nothing may be left
/// over. Throws naming file and tensor.
void load_tensors(const std::string& file, const std::vector<NamedTensor>& targets, int threads = 1);
/// Names of the two tensor files inside a checkpoint folder.
std::string model_file(const CheckpointFile& checkpoint);
std::string optimizer_file(const CheckpointFile& checkpoint);

}  // namespace nsa
