#include "model/flops.h"

#include <algorithm>

#include "model/nsa_attention.h"

namespace nsa {

double attention_pairs(std::int64_t T, std::int64_t window) {
  const double t = static_cast<double>(T), w = window ? static_cast<double>(std::min(window, T)) : t;
  return w * (w + 1) / 2 + (t - w) * w;
}

double compressed_pairs(std::int64_t T, const NsaShape& geometry) {
  double pairs = 0;
  for (std::int64_t t = 0; t < T; ++t) pairs += static_cast<double>(geometry.visible(t));
  return pairs;
}

double selected_pairs(std::int64_t T, const NsaShape& geometry) {
  double pairs = 0;
  for (std::int64_t t = 0; t < T; ++t) {
    const std::int64_t current = t / geometry.l_sel,
                       others = std::min(current, geometry.n - 1);  // the query's own block is always chosen
    pairs += static_cast<double>(others * geometry.l_sel + t % geometry.l_sel + 1);
  }
  return pairs;
}

Flops flops_per_token(const ModelConfig& config, std::int64_t T) {
  const AttentionConfig& a = config.attention;
  const double C = static_cast<double>(config.hidden_size), F = static_cast<double>(config.intermediate_size),
               V = static_cast<double>(config.vocab_size);
  const double L = static_cast<double>(config.num_layers), H = static_cast<double>(a.num_heads),
               Hkv = static_cast<double>(a.num_kv_heads);
  const double Dk = static_cast<double>(a.head_dim), Dv = static_cast<double>(a.Dv()), tokens = static_cast<double>(T);
  const double branches = a.type == AttentionType::nsa && !a.shared_kv ? 3 : 1;

  double weights = C * H * Dk + branches * C * Hkv * (Dk + Dv) + H * Dv * C + 3 * C * F;  // one layer
  double pair_flops = 2 * H * (Dk + Dv), pairs = attention_pairs(T, a.window);
  if (a.type == AttentionType::nsa) {
    const NsaShape geometry = nsa_shape(a);
    weights += C * H * 3;
    const double blocks = static_cast<double>(geometry.Tc(T)) / tokens, l = static_cast<double>(geometry.l);
    if (a.compressor != Compressor::mean) {
      const double Ek = a.compressor == Compressor::mlp ? static_cast<double>(a.hidden_k()) : Dk,
                   Ev = a.compressor == Compressor::mlp ? static_cast<double>(a.hidden_v()) : Dv;
      weights += blocks * Hkv * (l * Dk * Ek + l * Dv * Ev);
      if (a.compressor == Compressor::mlp) weights += blocks * Hkv * (Ek * Dk + Ev * Dv);
    }
    pairs = compressed_pairs(T, geometry) + selected_pairs(T, geometry) + attention_pairs(T, geometry.w);
  }
  Flops flops;
  flops.matrices = 2 * (L * weights + C * V);
  flops.attention = L * pair_flops * pairs / tokens;
  return flops;
}

}  // namespace nsa
