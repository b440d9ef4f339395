// Native Sparse Attention as a layer (NSA.md, forward steps 1-10; arXiv 2502.11089 Eq. 5-12).
#pragma once

#include "model/attention.h"
#include "nsa/ops.h"

namespace nsa {

/// The NSA sizes of an attention config.
NsaShape nsa_shape(const AttentionConfig& config);

struct NsaAttention {
  AttentionConfig config;
  NsaShape shape;
  Linear q_proj, o_proj, g_proj;
  /// One per branch; with shared_kv all three are the same projection.
  struct Branches {
    Linear cmp, slc, win;
  };
  Branches k_proj, v_proj;
  HeadNorm q_norm, k_norm_cmp, k_norm_slc, k_norm_win;
  struct CompressorParams {
    Param *pos = nullptr, *w1 = nullptr, *b1 = nullptr, *w2 = nullptr, *b2 = nullptr;
    CompressWeights weights() const;
    CompressWeights gradients() const;
  };
  CompressorParams compress_k, compress_v;

  struct Saved {
    Tensor q;                           // (B,T,H,Dk) rotated
    Tensor k_cmp, v_cmp;                // (B,T,Hkv,D): what is compressed (rotated only with rope_before_compress)
    Tensor k_slc, v_slc, k_win, v_win;  // (B,T,Hkv,D), keys rotated; with shared_kv some of these are the same buffers
    Tensor kc, vc;                      // (B,Tc,Hkv,D) compressed keys (rotated) and values
    Tensor hidden_k, hidden_v;          // pre-activations of the "mlp" compressor
    Tensor o_cmp, o_slc, o_win, o;      // (B,T,H,Dv)
    Tensor lse_cmp, lse_slc, lse_win;   // (B,T,H)
    Tensor selected;                    // (B,Hkv,T,n) i32
    Tensor gates;                       // (N,H,3)
    HeadNorm::Saved q_norm, k_norm_cmp, k_norm_slc, k_norm_win;
  };

  static NsaAttention declare(Params& params, const std::string& prefix, const ModelConfig& model);
  Saved take(Device& dev, BatchShape batch) const;
  void fill(Device& dev, const Saved& s, In x, In rope) const;
  /// The two halves of fill(): everything up to `selected`, and what follows from it. Verification puts given indices
  /// between them.
  void fill_selected(Device& dev, const Saved& s, In x, In rope) const;
  void fill_rest(Device& dev, const Saved& s) const;
  void output(Device& dev, Out y, const Saved& s) const { o_proj.forward(dev, y, as_rows(s.o)); }
  void backward(Device& dev, Out dx, In dy, In x, const Saved& s, In rope) const;

 private:
  void fill_keys(Device& dev, const Saved& s, In x, In rope) const;
  void fill_compressed(Device& dev, const Saved& s, In rope) const;
  Tensor compressor_input(Device& dev, const Saved& s, In rope) const;
  /// slc and win read the same rotated copy of the shared key
  bool one_rotated_key() const { return config.shared_kv && !config.qk_norm; }
  struct KeyGrads {
    Tensor k_cmp, v_cmp, k_slc, v_slc, k_win, v_win;
  };
  void compressed_backward(Device& dev, const KeyGrads& d, InOut dkc, In dvc, const Saved& s, In rope) const;
  void projections_backward(Device& dev, Out dx, In dq, In d_logits, const KeyGrads& d, In x) const;
};

}  // namespace nsa
