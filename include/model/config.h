// What a model is. Names as in NSA.md; sizes in the alphabet of DESIGN law 1 (C hidden, L layers, V vocab, F ffn, H/Hkv
// heads, Dk/Dv head dims).
#pragma once

#include <cstdint>

#include "core/fields.h"
#include "nsa/ops.h"

namespace nsa {

enum class AttentionType : int { full, nsa };
inline const Choices kAttentionTypes{"full", "nsa"};
inline const Choices kCompressors{"mlp", "linear", "mean"};

struct AttentionConfig {
  AttentionType type = AttentionType::nsa;
  std::int64_t num_heads = 8;     // H
  std::int64_t num_kv_heads = 2;  // Hkv
  std::int64_t head_dim = 64;     // Dk
  std::int64_t v_head_dim = 0;    // Dv; 0: head_dim
  bool qk_norm = false;
  // "nsa" only (window: also "full", 0 there means no window)
  std::int64_t compress_block = 32;   // l
  std::int64_t compress_stride = 16;  // d
  Compressor compressor = Compressor::mlp;
  std::int64_t compress_hidden = 0;  // 0: Dk for keys, Dv for values
  std::int64_t select_block = 64;    // l'
  std::int64_t select_count = 16;    // n
  std::int64_t select_init = 1;
  std::int64_t select_local = 2;
  std::int64_t window = 0;  // w; for "nsa" 0 means 512
  bool shared_kv = false;
  bool rope_before_compress = false;

  std::int64_t Dv() const { return v_head_dim ? v_head_dim : head_dim; }
  std::int64_t G() const { return num_heads / num_kv_heads; }
  std::int64_t w() const { return type == AttentionType::nsa && window == 0 ? 512 : window; }
  std::int64_t hidden_k() const { return compress_hidden ? compress_hidden : head_dim; }
  std::int64_t hidden_v() const { return compress_hidden ? compress_hidden : Dv(); }

  void fields(FieldList& v) {
    v.choice("type", type, kAttentionTypes, "\"full\" causal attention or \"nsa\", Native Sparse Attention");
    v.field("num_heads", num_heads, "H, query heads", Range{1, 4096});
    v.field("num_kv_heads", num_kv_heads, "Hkv, key/value heads; divides num_heads", Range{1, 4096});
    v.field("head_dim", head_dim, "Dk, size of a query or key head; even", Range{2, 512});
    v.field("v_head_dim", v_head_dim, "Dv, size of a value head; 0: head_dim", Range{0, 512});
    v.field("qk_norm", qk_norm, "RMSNorm over the head dimension of queries and keys, before RoPE");
    v.field("compress_block", compress_block, "nsa: l, tokens in a compressed block", Range{1, 65536});
    v.field("compress_stride", compress_stride,
            "nsa: d, tokens between starts of compressed blocks; divides compress_block and select_block",
            Range{1, 65536});
    v.choice("compressor", compressor, kCompressors, "nsa: how a block becomes one key and one value");
    v.field("compress_hidden", compress_hidden,
            "nsa: hidden size of the \"mlp\" compressor; 0: head_dim for keys, v_head_dim for values", Range{0, 65536});
    v.field("select_block", select_block, "nsa: l', tokens in a selectable block; at least compress_block",
            Range{1, 65536});
    v.field("select_count", select_count, "nsa: n, blocks a query reads, forced ones included", Range{1, 65536});
    v.field("select_init", select_init, "nsa: blocks at the start of the sequence that are always selected",
            Range{0, 65536});
    v.field("select_local", select_local, "nsa: blocks up to the query's own that are always selected",
            Range{1, 65536});
    v.field("window", window, "w, tokens in the sliding window, self included; 0: 512 for nsa, no window for full",
            Range{0, 1 << 30});
    v.field("shared_kv", shared_kv, "nsa: one key/value projection for all three branches");
    v.field("rope_before_compress", rope_before_compress,
            "nsa: rotate keys per token before compression instead of the compressed key");
  }
};

struct ModelConfig {
  std::int64_t vocab_size = 0;         // V
  std::int64_t hidden_size = 0;        // C
  std::int64_t num_layers = 0;         // L
  std::int64_t intermediate_size = 0;  // F
  bool tie_embeddings = false;
  double norm_eps = 1e-5;
  double rope_theta = 10000.0;
  double init_std = 0;
  AttentionConfig attention;

  void fields(FieldList& v) {
    v.field("vocab_size", vocab_size, required("V, number of tokens the model knows"), Range{2, 1 << 24});
    v.field("hidden_size", hidden_size, required("C, width of the residual stream"), Range{1, 1 << 20});
    v.field("num_layers", num_layers, required("L, number of blocks"), Range{1, 10000});
    v.field("intermediate_size", intermediate_size, required("F, width of the SwiGLU feed-forward"), Range{1, 1 << 22});
    v.field("tie_embeddings", tie_embeddings, "the output head uses the embedding matrix");
    v.field("norm_eps", norm_eps, "epsilon of every RMSNorm", Range{0, 1});
    v.field("rope_theta", rope_theta, "base of the rotary frequencies", Range{1, 1e12});
    v.field("init_std", init_std,
            "standard deviation of initial weights, divided by sqrt(2 L) for o_proj and down_proj; 0: by fan-in, "
            "1 / sqrt(columns) for each matrix, whatever the width",
            Range{0, 10});
    v.section("attention", attention, "the attention layer");
  }
};

/// Throws one sentence naming the field when sizes do not fit together (Hkv divides H, d divides l and l', l <= l',
/// head_dim even, ...).
void check(const ModelConfig& config);

}  // namespace nsa
