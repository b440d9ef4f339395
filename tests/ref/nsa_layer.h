// The whole attention layer of NSA.md, steps 1-10, forward and backward, from the pieces of ref/nsa.h. Parameters and
// gradients go by their names in NSA.md
// ("q_proj.weight", "compress_k.w1", ...). Branches are numbered in the order of the gates: 0 cmp, 1 slc, 2 win.
#pragma once

#include <array>
#include <map>
#include <string>

#include "model/config.h"
#include "ref/nsa.h"

namespace nsa::test::ref {

template <class T>
using NamedValues = std::map<std::string, Vec<T>>;

struct NsaLayer {
  ModelConfig model;
  NsaSizes z;
  CompressSizes keys, values;

  NsaLayer(const ModelConfig& config, std::int64_t B, std::int64_t T) : model(config) {
    const AttentionConfig& a = config.attention;
    const NsaShape geometry{a.compress_block, a.compress_stride, a.select_block, a.select_count,
                            a.select_init,    a.select_local,    a.w()};
    z = {B, T, a.num_heads, a.num_kv_heads, a.head_dim, a.Dv(), geometry};
    const bool mlp = a.compressor == Compressor::mlp;
    keys = {a.compressor, B, T, z.Hkv, z.Dk, mlp ? a.hidden_k() : z.Dk, z.geometry};
    values = {a.compressor, B, T, z.Hkv, z.Dv, mlp ? a.hidden_v() : z.Dv, z.geometry};
  }
  std::int64_t N() const { return z.B * z.T; }
  std::int64_t C() const { return model.hidden_size; }
  bool rotates_before() const { return model.attention.rope_before_compress; }
  /// "k_proj_slc.weight", or "k_proj.weight" when the branches share it
  std::string projection(const char* which, int branch) const {
    const char* const suffix[] = {"_cmp", "_slc", "_win"};
    return std::string(which) + "_proj" + (model.attention.shared_kv ? "" : suffix[branch]) + ".weight";
  }
};

template <class T>
CompressParams<T> compressor_params(const NamedValues<T>& p, const std::string& prefix) {
  const auto get = [&](const char* name) { return p.count(prefix + name) ? p.at(prefix + name) : Vec<T>(); };
  return {get(".pos"), get(".w1"), get(".b1"), get(".w2"), get(".b2")};
}

/// Steps 2 and 3 for one tensor of heads (B,rows,heads,D): RMSNorm over the head when the weight exists, then RoPE at
/// position row * stride (0: none).
struct HeadPosition {
  std::int64_t rows, heads, D, stride;
};
template <class T>
Vec<T> norm_and_rotate(const NsaLayer& layer, const HeadPosition& at, const NamedValues<T>& p, const std::string& norm,
                       const Vec<T>& x) {
  const Vec<T> y = layer.model.attention.qk_norm ? rmsnorm_forward(x, p.at(norm), layer.model.norm_eps) : x;
  return at.stride ? rope(y, at.rows, at.heads, at.D, at.stride, layer.model.rope_theta) : y;
}
template <class T>
Vec<T> norm_and_rotate_backward(const NsaLayer& layer, const HeadPosition& at, const NamedValues<T>& p,
                                const std::string& norm, const Vec<T>& x, const Vec<T>& dy, NamedValues<T>& grads) {
  const Vec<T> d = at.stride ? rope(dy, at.rows, at.heads, at.D, at.stride, layer.model.rope_theta, -1) : dy;
  if (!layer.model.attention.qk_norm) return d;
  const NormGradients<T> g = rmsnorm_backward(d, x, p.at(norm), layer.model.norm_eps);
  grads[norm] = g.dw;
  return g.dx;
}

template <class T>
struct NsaForward {
  Vec<T> q_pre, q;                    // before and after norm and rotation
  std::array<Vec<T>, 3> k_pre, k, v;  // k[0]: what the compressor reads
  Compressed<T> kc_pre, vc;
  Vec<T> kc, score, gates, o, y;
  Ids selected;
  std::array<Attended<T>, 3> branch;
};

inline HeadPosition query_position(const NsaLayer& s) { return {s.z.T, s.z.H, s.z.Dk, 1}; }
inline HeadPosition key_position(const NsaLayer& s) { return {s.z.T, s.z.Hkv, s.z.Dk, 1}; }
inline HeadPosition compressed_position(const NsaLayer& s) {
  return {s.z.Tc(), s.z.Hkv, s.z.Dk, s.rotates_before() ? 0 : s.z.geometry.d};
}

/// x (B,T,C). `given`: block indices to use instead of the layer's own, or empty.
template <class T>
NsaForward<T> layer_forward(const NsaLayer& s, const Vec<T>& x, const NamedValues<T>& p, const Ids& given = {}) {
  const NsaSizes& z = s.z;
  NsaForward<T> f;
  f.q_pre = matmul_forward(x, p.at("q_proj.weight"), s.N(), s.C(), z.H * z.Dk);
  f.q = norm_and_rotate(s, query_position(s), p, "q_norm.weight", f.q_pre);
  for (int b = 0; b < 3; ++b) {
    f.k_pre[b] = matmul_forward(x, p.at(s.projection("k", b)), s.N(), s.C(), z.Hkv * z.Dk);
    f.v[b] = matmul_forward(x, p.at(s.projection("v", b)), s.N(), s.C(), z.Hkv * z.Dv);
  }
  f.k[0] = s.rotates_before() ? rope(f.k_pre[0], z.T, z.Hkv, z.Dk, 1, s.model.rope_theta) : f.k_pre[0];
  f.k[1] = norm_and_rotate(s, key_position(s), p, "k_norm_slc.weight", f.k_pre[1]);
  f.k[2] = norm_and_rotate(s, key_position(s), p, "k_norm_win.weight", f.k_pre[2]);

  f.kc_pre = compress_forward(s.keys, f.k[0], compressor_params(p, "compress_k"));
  f.kc = norm_and_rotate(s, compressed_position(s), p, "k_norm_cmp.weight", f.kc_pre.c);
  f.vc = compress_forward(s.values, f.v[0], compressor_params(p, "compress_v"));
  f.branch[0] = attend_compressed_forward(z, f.q, f.kc, f.vc.c);
  f.score = block_scores(z, f.branch[0].p);
  f.selected = given.empty() ? select_blocks(z, f.score) : given;
  f.branch[1] = attend_selected_forward(z, f.q, f.k[1], f.v[1], f.selected);
  f.branch[2] = attend_window_forward(z, f.q, f.k[2], f.v[2]);

  f.gates = matmul_forward(x, p.at("g_proj.weight"), s.N(), s.C(), z.H * 3);
  for (T& g : f.gates) g = sigmoid(g);
  f.o = gate_forward(s.N() * z.H, z.Dv, f.gates, f.branch[0].o, f.branch[1].o, f.branch[2].o);
  f.y = matmul_forward(f.o, p.at("o_proj.weight"), s.N(), z.H * z.Dv, s.C());
  return f;
}

template <class T>
void add_to(Vec<T>& sum, const Vec<T>& x) {
  if (sum.empty()) sum.assign(x.size(), T(0));
  for (std::size_t i = 0; i < x.size(); ++i) sum[i] += x[i];
}

template <class T>
void store_compressor_grads(NamedValues<T>& grads, const std::string& prefix, const CompressParams<T>& g) {
  const std::pair<const char*, const Vec<T>*> parts[] = {
      {".pos", &g.pos}, {".w1", &g.w1}, {".b1", &g.b1}, {".w2", &g.w2}, {".b2", &g.b2}};
  for (const auto& [name, value] : parts)
    if (!value->empty()) grads[prefix + name] = *value;
}

template <class T>
struct NsaGradients {
  Vec<T> dx;
  NamedValues<T> params;
};

template <class T>
NsaGradients<T> layer_backward(const NsaLayer& s, const Vec<T>& dy, const Vec<T>& x, const NamedValues<T>& p,
                               const NsaForward<T>& f) {
  const NsaSizes& z = s.z;
  NsaGradients<T> g;
  const auto project = [&](const std::string& name, const Vec<T>& d,
                           std::int64_t O) {  // y = x W^T, several branches may share W
    add_to(g.params[name], matmul_backward_weight(d, x, s.N(), s.C(), O));
    add_to(g.dx, matmul_backward_input(d, p.at(name), s.N(), s.C(), O));
  };
  g.params["o_proj.weight"] = matmul_backward_weight(dy, f.o, s.N(), z.H * z.Dv, s.C());
  const Vec<T> d_o = matmul_backward_input(dy, p.at("o_proj.weight"), s.N(), z.H * z.Dv, s.C());
  const GateGrads<T> gate = gate_backward(s.N() * z.H, z.Dv, d_o, f.gates, f.branch[0].o, f.branch[1].o, f.branch[2].o);
  project("g_proj.weight", gate.d_logits, z.H * 3);

  const AttendGrads<T> cmp = attend_backward(z, z.Tc(), gate.d_o_cmp, f.branch[0].p, f.q, f.kc, f.vc.c);
  const AttendGrads<T> slc = attend_backward(z, z.T, gate.d_o_slc, f.branch[1].p, f.q, f.k[1], f.v[1]);
  const AttendGrads<T> win = attend_backward(z, z.T, gate.d_o_win, f.branch[2].p, f.q, f.k[2], f.v[2]);
  Vec<T> dq = cmp.dq;
  add_to(dq, slc.dq);
  add_to(dq, win.dq);
  project("q_proj.weight", norm_and_rotate_backward(s, query_position(s), p, "q_norm.weight", f.q_pre, dq, g.params),
          z.H * z.Dk);

  const Vec<T> dkc =
      norm_and_rotate_backward(s, compressed_position(s), p, "k_norm_cmp.weight", f.kc_pre.c, cmp.dk, g.params);
  const CompressGrads<T> keys =
      compress_backward(s.keys, dkc, f.kc_pre.hidden, f.k[0], compressor_params(p, "compress_k"));
  const CompressGrads<T> values =
      compress_backward(s.values, cmp.dv, f.vc.hidden, f.v[0], compressor_params(p, "compress_v"));
  store_compressor_grads(g.params, "compress_k", keys.w);
  store_compressor_grads(g.params, "compress_v", values.w);

  project(s.projection("k", 0),
          s.rotates_before() ? rope(keys.dx, z.T, z.Hkv, z.Dk, 1, s.model.rope_theta, -1) : keys.dx, z.Hkv * z.Dk);
  project(s.projection("k", 1),
          norm_and_rotate_backward(s, key_position(s), p, "k_norm_slc.weight", f.k_pre[1], slc.dk, g.params),
          z.Hkv * z.Dk);
  project(s.projection("k", 2),
          norm_and_rotate_backward(s, key_position(s), p, "k_norm_win.weight", f.k_pre[2], win.dk, g.params),
          z.Hkv * z.Dk);
  project(s.projection("v", 0), values.dx, z.Hkv * z.Dv);
  project(s.projection("v", 1), slc.dv, z.Hkv * z.Dv);
  project(s.projection("v", 2), win.dv, z.Hkv * z.Dv);
  return g;
}

}  // namespace nsa::test::ref
