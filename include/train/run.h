// A training run: from a config to runs/NAME, resumed by itself from the newest valid checkpoint.
#pragma once

#include <functional>
#include <string>

#include "core/check.h"
#include "data/tokenizer.h"
#include "train/config.h"
#include "train/make_device.h"

namespace nsa {

/// Text for eval.sample_every (eval/ provides it; train/ does not know how to generate).
using Sampler =
    std::function<std::string(Device&, const Gpt&, const data::Tokenizer&, const Config&, std::int64_t step)>;

struct RunOptions {
  std::string command;           ///< the command line, for metrics.jsonl
  bool fresh = false;            ///< refuse a folder that already holds a run instead of resuming it
  bool force_data = false;       ///< resume although the data (files, tokenizer, sequence length, seed) differ
  bool force_precision = false;  ///< resume although the number format of the computation differs
  bool force_schedule = false;   ///< resume although the schedule (length, batch, learning rate, optimizer) differs
  Sampler sample;                ///< absent: no samples
  std::function<void(std::int64_t step, double loss)>
      on_step;  ///< after every step, for a progress line over several runs
  std::int64_t stop_after_step =
      0;                ///< stop there as SIGTERM would, saved; 0: do not (comparisons give every run a slice; tests)
  bool console = true;  ///< false: nothing on the terminal (compare, tests)
};

/// runs/NAME of a config.
std::string run_dir(const Config& config);

/// The last step's checkpoint is there, and its validation if the config asks for one.
bool run_finished(const Config& config);

/// The newest checkpoint was saved when train.max_skipped steps in a row had been skipped: going on would change
/// nothing.
bool run_diverged(const Config& config);

/// Trains until the last step, a signal that stops (core/signals.h: finish the step, save, Exit::ok) or
/// train.max_skipped skipped steps in a row (save, Exit::non_finite). Checkpoints are written before validation and
/// samples. Everything a user can get wrong throws one sentence before the first step. An error later on first saves
/// the last finished step. When the last save fails, twice, the sentence that is thrown says what is on the disk.
Exit train(const Config& config, const RunOptions& options);

}  // namespace nsa
