// Full causal attention (optionally with a sliding window), Llama / Qwen3 parameter names.
#pragma once

#include "model/config.h"
#include "model/layers.h"

namespace nsa {

/// What every layer of one micro-batch needs to know: its sizes, and the type its activations have.
struct BatchShape {
  std::int64_t B = 0, T = 0;
  DType dtype = DType::f32;
  std::int64_t N() const { return B * T; }
};

/// Optional RMSNorm over the head dimension: q (B,T,H,D) seen as rows of D. Absent (w == nullptr): nothing is taken and
/// nothing happens.
struct HeadNorm {
  Norm norm;
  struct Saved {
    Tensor pre, rstd;  // (B,T,H,D) before the norm, (B*T*H)
  };
  explicit operator bool() const { return norm.w != nullptr; }
  Saved take(Device& dev, const Shape& heads, DType type) const;
  /// y = norm(pre)
  void forward(Device& dev, Out y, const Saved& s) const;
  /// dx becomes the gradient of `pre`, in place
  void backward(Device& dev, InOut dx, const Saved& s) const;
};

struct FullAttention {
  AttentionConfig config;
  Linear q_proj, k_proj, v_proj, o_proj;
  HeadNorm q_norm, k_norm;

  struct Saved {
    Tensor q, k, v;  // (B,T,H,Dk) and (B,T,Hkv,Dk), rotated; (B,T,Hkv,Dv)
    Tensor o, lse;   // (B,T,H,Dv), (B,T,H)
    HeadNorm::Saved q_norm, k_norm;
  };

  static FullAttention declare(Params& params, const std::string& prefix, const ModelConfig& model);
  Saved take(Device& dev, BatchShape batch) const;
  /// Everything but the output projection: fills Saved from x (N,C), the normed block input.
  void fill(Device& dev, const Saved& s, In x, In rope) const;
  /// y (N,C) = o Wo
  void output(Device& dev, Out y, const Saved& s) const;
  /// dx (N,C) from dy (N,C); consumes s.
  void backward(Device& dev, Out dx, In dy, In x, const Saved& s, In rope) const;
};

/// (B,T,H,D) seen as (N, H*D)
Tensor as_rows(const Tensor& heads);

}  // namespace nsa
