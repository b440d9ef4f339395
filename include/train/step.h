// THE STEP: the one page that says what training does.
#pragma once

#include <array>
#include <optional>
#include <string>
#include <vector>

#include "data/loader.h"
#include "model/gpt.h"
#include "train/checkpoint.h"
#include "train/config.h"
#include "train/outliers.h"

namespace nsa {

/// Buffers of a micro-batch; they live in the parameter arena, for the whole run.
struct BatchBuffers {
  Tensor tokens, targets;  // (B,T) i32
  Tensor losses;           // (B*T) f32
  Tensor hits;             // (B*T) f32, of a validation
  Tensor sums;             // (2) f32: of the losses, of the squared gradients or the hits; all the host reads of a step
  Tensor looks;            // NSA: of every layer (train/look.h)
  BatchBuffers(Device& dev, const Config& config);
  /// The first b sequences of the buffers.
  BatchBuffers first(std::int64_t b) const;

 private:
  BatchBuffers() = default;
};

struct StepResult {
  double loss = 0, grad_norm = 0, lr = 0;  ///< loss: mean over the targets that count, nats per token
  std::optional<double> z_loss, z_norm;
  std::string skipped;  ///< "non-finite", "outlier", kNoTargets (log.h), or "" when the optimizer ran
};

/// Forward and backward over batch_tokens, clip, AdamW; advances `state` (step, tokens, position, optimizer_steps,
/// skipped...). A non-finite loss or norm never reaches the optimizer. `look` sees the blocks of the last micro-batch.
StepResult train_step(Device& dev, Gpt& gpt, data::Loader& loader, const Config& config, const BatchBuffers& batch,
                      OutlierWindow& losses, OutlierWindow& norms, TrainState& state, const LookAtBlock& look = {});

struct Validation {
  struct Part {
    double loss = 0, accuracy = 0;
    std::int64_t counted = 0;
  };
  double loss = 0;           ///< mean over the targets that count, nats per token
  double accuracy = 0;       ///< share of them that were the likeliest token
  std::int64_t tokens = 0;   ///< seen
  std::int64_t counted = 0;  ///< of these, as targets
  std::int64_t bytes = 0;    ///< of text behind the targets that count; 0: unknown
  std::vector<Part> shards;  ///< of masked data in several shards: the same of each
};
/// Sequences that a validation of so many micro-batches (0: all) reads.
std::int64_t sequences_of(const data::TokenData& data, std::int64_t micro_batches, std::int64_t B);

/// The loss over `micro_batches` micro-batches (0: all) of `data`, in order. `token_bytes` (V) says how many bytes a
/// token stands for; when it is empty only a validation of everything knows its bytes, from the side-cars.
Validation validate(Device& dev, const Gpt& gpt, const data::TokenData& data, std::int64_t micro_batches,
                    const BatchBuffers& batch, const std::vector<std::int32_t>& token_bytes);
/// Absent when the bytes are unknown, and when not all tokens count: there is no text of which it would be true.
std::optional<double> bits_per_byte(const Validation& v);

}  // namespace nsa
