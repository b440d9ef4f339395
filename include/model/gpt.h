// The language model: embedding, L blocks, final norm, head. Written once over the op list; nothing here knows the
// backend (DESIGN law 2).
#pragma once

#include <functional>
#include <vector>

#include "model/block.h"

namespace nsa {

/// Keep every block's activations for backward, or only its input and fill them again: same bits, less memory, one more
/// forward.
enum class Recompute : int { none, block };

/// Called with each block's Saved right after it was filled (diagnostics: mean gates; verification: selected blocks).
using LookAtBlock = std::function<void(std::int64_t layer, const Block::Saved&)>;

class Gpt {
 public:
  /// Declares the parameters, takes their slabs and the RoPE table for sequences of up to `max_T` tokens from
  /// dev.params. With a planning dev.params only bytes are counted. Ops compute in `type`, f32 or bf16. Weights are
  /// whatever the slab holds until params().initialise(), or load_tensors() and params().refresh_copies().
  Gpt(Device& dev, const ModelConfig& config, std::int64_t max_T, Params::With with, DType type = DType::f32);
  Gpt(const Gpt&) = delete;  // layers point at params_
  Gpt& operator=(const Gpt&) = delete;

  const ModelConfig& config() const { return config_; }
  Params& params() { return params_; }
  const Params& params() const { return params_; }

  /// Forward and backward of one micro-batch. losses (B*T) f32; tokens, targets (B,T) i32; adds scale * d(sum of
  /// losses)/dw into every gradient.
  void train(Device& dev, Out losses, In tokens, In targets, float scale, Recompute recompute,
             const LookAtBlock& look = {}) const;
  /// Forward only: losses (B*T), and hits (B*T) f32: 1 where the target is the likeliest token, else 0.
  void evaluate(Device& dev, Out losses, Out hits, In tokens, In targets) const;
  /// Forward only: logits of all positions, (B*T, V) f32. For tests and verification: B*T*V floats at once.
  void logits(Device& dev, Out logits, In tokens, const LookAtBlock& look = {}) const;
  /// Forward only: logits (1,V) f32 of position t of tokens (1,T). What stands after t does not matter (attention is
  /// causal): callers may pad.
  void next_logits(Device& dev, Out logits, In tokens, std::int64_t t) const;

 private:
  Tensor head() const { return lm_head_ ? lm_head_->w : embed_->w; }
  Tensor head_grad() const { return lm_head_ ? lm_head_->grad : embed_->grad; }
  /// Rows of the head computed at once: B*T*V floats are never held together.
  std::int64_t head_rows(std::int64_t N) const;
  /// x (N,C): the last block's output, nothing kept.
  void forward_only(Device& dev, Out x, In tokens, const LookAtBlock& look) const;
  /// What training wants of the head besides the losses: dh (N,C), and scale * d losses/dw added into its gradient.
  struct HeadBackward {
    Tensor dh;
    float scale;
  };
  void head_losses(Device& dev, Out losses, In h, In targets, const HeadBackward& backward) const;
  void head_losses(Device& dev, Out losses, Out hits, In h, In targets) const;
  /// Calls f(begin, end, logits of these rows) for all rows of h (N,C), some at a time.
  template <class F>
  void head_chunks(Device& dev, In h, F&& f) const;
  BatchShape batch_of(In tokens) const { return {tokens.dim(0), tokens.dim(1), type_}; }

  ModelConfig config_;
  DType type_;
  Params params_;
  Param* embed_ = nullptr;
  Param* lm_head_ = nullptr;  // null when tied
  Norm norm_;
  std::vector<Block> blocks_;
  Tensor rope_;  // (max_T, Dk/2, 2) f32
};

}  // namespace nsa
