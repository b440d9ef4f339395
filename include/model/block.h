// A pre-norm transformer block: x_mid = x + attention(norm(x)); x_out = x_mid + mlp(norm(x_mid)).
#pragma once

#include <variant>

#include "model/nsa_attention.h"

namespace nsa {

struct Block {
  Norm input_norm, post_attention_norm;
  std::variant<FullAttention, NsaAttention> attention;
  Mlp mlp;

  struct Saved {
    Tensor h_attn, rstd_attn;  // (N,C) normed block input, (N)
    std::variant<FullAttention::Saved, NsaAttention::Saved> attention;
    Tensor x_mid;            // (N,C)
    Tensor h_mlp, rstd_mlp;  // (N,C), (N)
    Mlp::Saved mlp;
    /// null for full attention
    const NsaAttention::Saved* nsa() const { return std::get_if<NsaAttention::Saved>(&attention); }
  };

  static Block declare(Params& params, const std::string& prefix, const ModelConfig& model);
  Saved take(Device& dev, BatchShape batch) const;
  /// Fills Saved from the block input x (N,C). Filling it again from the same x gives the same bits: that is
  /// recomputation.
  void fill(Device& dev, const Saved& s, In x, In rope) const;
  /// x_out (N,C) from a filled Saved
  void output(Device& dev, Out x_out, const Saved& s) const;
  /// d (N,C): in, the gradient of the block's output; out, of its input x. Consumes s.
  void backward(Device& dev, InOut d, In x, const Saved& s, In rope) const;
};

}  // namespace nsa
