#include "model/nsa_attention.h"

#include <cmath>

namespace nsa {

NsaShape nsa_shape(const AttentionConfig& a) {
  NsaShape s;
  s.l = a.compress_block;
  s.d = a.compress_stride;
  s.l_sel = a.select_block;
  s.n = a.select_count;
  s.init = a.select_init;
  s.local = a.select_local;
  s.w = a.w();
  return s;
}

namespace {

// Gains of the rule of fan-in. SiLU takes N(0,1) to numbers of standard deviation 0.560 (and mean 0.207, which centred
// rows do not pass on: else every compressed value would hold one large constant). Gates shall start near 1/2, whatever
// the token. A mean of l tokens has their rms divided by sqrt(l), which only a projection of its own can make good.
constexpr double kAfterSilu = 1.787, kGate = 0.25;
double before_compression(const AttentionConfig& a) {
  return a.compressor == Compressor::mean && !a.shared_kv ? std::sqrt(static_cast<double>(a.compress_block)) : 1.0;
}

// By fan-in, positions are as large as the keys they are added to, and w1 takes both to rms 1: half of a compressed key
// is the same in every block, and through RoPE a query can tell from it how far away the block is before it has learnt
// what is in the block. (In values it would be a constant in the output; there positions start small.)
struct CompressorGains {
  double pos, w1;
};
CompressorGains key_gains(std::int64_t Dk) { return {std::sqrt(static_cast<double>(Dk)), std::sqrt(0.5)}; }
constexpr CompressorGains kValueGains{1, 1};

NsaAttention::CompressorParams declare_compressor(Params& params, const std::string& prefix, const AttentionConfig& a,
                                                  std::int64_t D, std::int64_t hidden, const CompressorGains& gains) {
  NsaAttention::CompressorParams c;
  if (a.compressor == Compressor::mean) return c;
  const std::int64_t Hkv = a.num_kv_heads, l = a.compress_block;
  c.pos = &params.declare(prefix + ".pos", {Hkv, l, D}, Init::normal, gains.pos);
  if (a.compressor == Compressor::linear) {
    c.w1 = &params.declare(prefix + ".w1", {Hkv, D, l * D}, Init::normal, gains.w1);
    return c;
  }
  c.w1 = &params.declare(prefix + ".w1", {Hkv, hidden, l * D}, Init::normal, gains.w1);
  c.b1 = &params.declare(prefix + ".b1", {Hkv, hidden}, Init::zeros);
  c.w2 = &params.declare(prefix + ".w2", {Hkv, D, hidden}, Init::centred, kAfterSilu);
  c.b2 = &params.declare(prefix + ".b2", {Hkv, D}, Init::zeros);
  return c;
}

}  // namespace

CompressWeights NsaAttention::CompressorParams::weights() const {
  const auto of = [](const Param* p) { return p ? p->w : Tensor{}; };
  return {of(pos), of(w1), of(b1), of(w2), of(b2)};
}

CompressWeights NsaAttention::CompressorParams::gradients() const {
  const auto of = [](const Param* p) { return p ? p->grad : Tensor{}; };
  return {of(pos), of(w1), of(b1), of(w2), of(b2)};
}

NsaAttention NsaAttention::declare(Params& params, const std::string& prefix, const ModelConfig& model) {
  const AttentionConfig& a = model.attention;
  const std::int64_t C = model.hidden_size, H = a.num_heads, Hkv = a.num_kv_heads, Dk = a.head_dim, Dv = a.Dv();
  NsaAttention layer;
  layer.config = a;
  layer.shape = nsa_shape(a);
  layer.q_proj.w = &params.declare(prefix + "q_proj.weight", {H * Dk, C});
  const auto branches = [&](const char* name, std::int64_t D) {
    Branches b;
    if (a.shared_kv) {
      b.cmp.w = b.slc.w = b.win.w = &params.declare(prefix + name + ".weight", {Hkv * D, C});
      return b;
    }
    b.cmp.w = &params.declare(prefix + name + "_cmp.weight", {Hkv * D, C}, Init::normal, before_compression(a));
    b.slc.w = &params.declare(prefix + name + "_slc.weight", {Hkv * D, C});
    b.win.w = &params.declare(prefix + name + "_win.weight", {Hkv * D, C});
    return b;
  };
  layer.k_proj = branches("k_proj", Dk);
  layer.v_proj = branches("v_proj", Dv);
  layer.compress_k = declare_compressor(params, prefix + "compress_k", a, Dk, a.hidden_k(), key_gains(Dk));
  layer.compress_v = declare_compressor(params, prefix + "compress_v", a, Dv, a.hidden_v(), kValueGains);
  if (a.qk_norm) {
    const auto norm = [&](const char* name) {
      return HeadNorm{
          {&params.declare(prefix + name + ".weight", {Dk}, Init::ones), static_cast<float>(model.norm_eps)}};
    };
    layer.q_norm = norm("q_norm");
    layer.k_norm_cmp = norm("k_norm_cmp");
    layer.k_norm_slc = norm("k_norm_slc");
    layer.k_norm_win = norm("k_norm_win");
  }
  layer.g_proj.w = &params.declare(prefix + "g_proj.weight", {H * 3, C}, Init::normal, kGate);
  layer.o_proj.w = &params.declare(prefix + "o_proj.weight", {C, H * Dv}, Init::residual);
  return layer;
}

// Who owns which key buffer. Every branch key is rotated in place, the key that is compressed is not: so without
// shared_kv each branch has its own buffer; with shared_kv the projection lands in k_cmp, slc and win read one rotated
// copy of it (or one normed copy each under qk_norm), and v is one buffer.
NsaAttention::Saved NsaAttention::take(Device& dev, BatchShape batch) const {
  const std::int64_t B = batch.B, T = batch.T, H = config.num_heads, Hkv = config.num_kv_heads, Dk = config.head_dim,
                     Dv = config.Dv(), Tc = shape.Tc(T);
  const auto activation = [&](const Shape& dims) { return dev.work.take(batch.dtype, dims, Purpose::activations); };
  const auto statistics = [&](const Shape& dims) { return dev.work.take(DType::f32, dims, Purpose::activations); };
  const Shape k_shape{B, T, Hkv, Dk}, v_shape{B, T, Hkv, Dv};
  Saved s;
  s.q = activation({B, T, H, Dk});
  s.q_norm = q_norm.take(dev, s.q.shape, batch.dtype);
  s.k_cmp = activation(k_shape);
  s.v_cmp = activation(v_shape);
  s.k_slc = activation(k_shape);
  s.k_win = one_rotated_key() ? s.k_slc : activation(k_shape);
  s.v_slc = config.shared_kv ? s.v_cmp : activation(v_shape);
  s.v_win = config.shared_kv ? s.v_cmp : activation(v_shape);
  if (config.qk_norm) {
    const std::int64_t rows = B * T * Hkv;
    const auto before = [&] {
      return HeadNorm::Saved{config.shared_kv ? s.k_cmp : activation(k_shape), statistics({rows})};
    };
    s.k_norm_slc = before();
    s.k_norm_win = before();
  }
  s.kc = activation({B, Tc, Hkv, Dk});
  s.vc = activation({B, Tc, Hkv, Dv});
  s.k_norm_cmp = k_norm_cmp.take(dev, s.kc.shape, batch.dtype);
  if (config.compressor == Compressor::mlp) {
    s.hidden_k = activation({B, Tc, Hkv, config.hidden_k()});
    s.hidden_v = activation({B, Tc, Hkv, config.hidden_v()});
  }
  for (Tensor* o : {&s.o_cmp, &s.o_slc, &s.o_win, &s.o}) *o = activation({B, T, H, Dv});
  for (Tensor* lse : {&s.lse_cmp, &s.lse_slc, &s.lse_win}) *lse = statistics({B, T, H});
  s.selected = dev.work.take(DType::i32, {B, Hkv, T, shape.n}, Purpose::activations);
  s.gates = statistics({B * T, H, 3});
  return s;
}

void NsaAttention::fill_keys(Device& dev, const Saved& s, In x, In rope) const {
  k_proj.cmp.forward(dev, as_rows(s.k_cmp), x);
  v_proj.cmp.forward(dev, as_rows(s.v_cmp), x);
  if (!config.shared_kv) {
    k_proj.slc.forward(dev, as_rows(config.qk_norm ? s.k_norm_slc.pre : s.k_slc), x);
    k_proj.win.forward(dev, as_rows(config.qk_norm ? s.k_norm_win.pre : s.k_win), x);
    v_proj.slc.forward(dev, as_rows(s.v_slc), x);
    v_proj.win.forward(dev, as_rows(s.v_win), x);
  }
  if (config.qk_norm) {
    k_norm_slc.forward(dev, s.k_slc, s.k_norm_slc);
    k_norm_win.forward(dev, s.k_win, s.k_norm_win);
  } else if (config.shared_kv) {
    op::copy(dev, s.k_slc, s.k_cmp);
  }
  op::rope_forward(dev, s.k_slc, rope, 1);
  if (!one_rotated_key()) op::rope_forward(dev, s.k_win, rope, 1);
}

// k_cmp, or a rotated copy of it in the caller's scope: with shared_kv under qk_norm the unrotated key is what the
// norms read in backward.
Tensor NsaAttention::compressor_input(Device& dev, const Saved& s, In rope) const {
  if (!config.rope_before_compress) return s.k_cmp;
  const Tensor rotated = dev.scratch(s.k_cmp.shape, s.k_cmp.dtype);
  op::copy(dev, rotated, s.k_cmp);
  op::rope_forward(dev, rotated, rope, 1);
  return rotated;
}

void NsaAttention::fill_compressed(Device& dev, const Saved& s, In rope) const {
  ArenaScope scope(dev.work);
  const Tensor k_in = compressor_input(dev, s, rope);
  const Tensor kc_raw = k_norm_cmp ? s.k_norm_cmp.pre : s.kc;
  op::compress_forward(dev, kc_raw, s.hidden_k, k_in, compress_k.weights(), config.compressor, shape);
  op::compress_forward(dev, s.vc, s.hidden_v, s.v_cmp, compress_v.weights(), config.compressor, shape);
  if (k_norm_cmp) k_norm_cmp.forward(dev, s.kc, s.k_norm_cmp);
  if (!config.rope_before_compress) op::rope_forward(dev, s.kc, rope, shape.d);
}

void NsaAttention::fill(Device& dev, const Saved& s, In x, In rope) const {
  fill_selected(dev, s, x, rope);
  fill_rest(dev, s);
}

void NsaAttention::fill_selected(Device& dev, const Saved& s, In x, In rope) const {
  q_proj.forward(dev, as_rows(q_norm ? s.q_norm.pre : s.q), x);
  if (q_norm) q_norm.forward(dev, s.q, s.q_norm);
  op::rope_forward(dev, s.q, rope, 1);
  fill_keys(dev, s, x, rope);
  fill_compressed(dev, s, rope);
  g_proj.forward(dev, s.gates.view({s.gates.dim(0), s.gates.dim(1) * 3}), x);

  op::attend_compressed_forward(dev, s.o_cmp, s.lse_cmp, s.q, s.kc, s.vc, shape);
  op::select_blocks(dev, s.selected, s.q, s.kc, s.lse_cmp, shape);
}

void NsaAttention::fill_rest(Device& dev, const Saved& s) const {
  op::attend_selected_forward(dev, s.o_slc, s.lse_slc, s.q, s.k_slc, s.v_slc, s.selected, shape);
  op::attention_forward(dev, s.o_win, s.lse_win, s.q, s.k_win, s.v_win, shape.w);
  const Shape by_head{s.gates.dim(0), s.o.dim(2), s.o.dim(3)};
  op::gate_forward(dev, s.o.view(by_head), s.gates, s.o_cmp.view(by_head), s.o_slc.view(by_head),
                   s.o_win.view(by_head));
}

void NsaAttention::backward(Device& dev, Out dx, In dy, In x, const Saved& s, In rope) const {
  ArenaScope scope(dev.work);
  const auto activation = [&](const Shape& dims) { return dev.work.take(x.dtype, dims, Purpose::activations); };
  const std::int64_t N = s.gates.dim(0), H = s.gates.dim(1), B = s.q.dim(0), T = s.q.dim(1);
  const Shape by_head{N, H, s.o.dim(3)};
  const Tensor d_logits = activation(s.gates.shape), delta = dev.work.take(DType::f32, {3, N, H}, Purpose::activations),
               dq = activation(s.q.shape);
  const KeyGrads d{activation(s.k_cmp.shape), activation(s.v_cmp.shape), activation(s.k_slc.shape),
                   activation(s.v_slc.shape), activation(s.k_win.shape), activation(s.v_win.shape)};
  {
    ArenaScope inner(dev.work);
    const Tensor d_o = activation(s.o.shape);
    o_proj.backward(dev, as_rows(d_o), dy, as_rows(s.o));
    op::gate_backward(dev, d_logits, delta, s.o_cmp.view(by_head), s.o_slc.view(by_head), s.o_win.view(by_head),
                      s.gates, d_o.view(by_head));
  }
  const auto delta_of = [&](std::int64_t branch) {
    return delta.rows(branch, branch + 1).view({B, T, H});
  };  // order cmp, slc, win
  {
    ArenaScope inner(dev.work);
    const Tensor dkc = activation(s.kc.shape), dvc = activation(s.vc.shape);
    op::attend_compressed_backward(dev, dq, dkc, dvc, s.o_cmp, delta_of(0), s.lse_cmp, s.q, s.kc, s.vc, shape,
                                   Write::overwrite);
    compressed_backward(dev, d, dkc, dvc, s, rope);
  }
  op::attend_selected_backward(dev, dq, d.k_slc, d.v_slc, s.o_slc, delta_of(1), s.lse_slc, s.q, s.k_slc, s.v_slc,
                               s.selected, shape, Write::add);
  op::attention_backward(dev, dq, d.k_win, d.v_win, s.o_win, delta_of(2), s.lse_win, s.q, s.k_win, s.v_win, shape.w,
                         Write::add);
  op::rope_backward(dev, d.k_slc, rope, 1);
  op::rope_backward(dev, d.k_win, rope, 1);
  op::rope_backward(dev, dq, rope, 1);
  if (config.qk_norm) {
    q_norm.backward(dev, dq, s.q_norm);
    k_norm_slc.backward(dev, d.k_slc, s.k_norm_slc);
    k_norm_win.backward(dev, d.k_win, s.k_norm_win);
  }
  projections_backward(dev, dx, dq, d_logits, d, x);
}

void NsaAttention::compressed_backward(Device& dev, const KeyGrads& d, InOut dkc, In dvc, const Saved& s,
                                       In rope) const {
  const Tensor k_in = compressor_input(dev, s, rope);
  if (!config.rope_before_compress) op::rope_backward(dev, dkc, rope, shape.d);
  if (k_norm_cmp) k_norm_cmp.backward(dev, dkc, s.k_norm_cmp);
  op::compress_backward(dev, d.k_cmp, compress_k.gradients(), dkc, s.hidden_k, k_in, compress_k.weights(),
                        config.compressor, shape);
  op::compress_backward(dev, d.v_cmp, compress_v.gradients(), dvc, s.hidden_v, s.v_cmp, compress_v.weights(),
                        config.compressor, shape);
  if (config.rope_before_compress) op::rope_backward(dev, d.k_cmp, rope, 1);
}

void NsaAttention::projections_backward(Device& dev, Out dx, In dq, In d_logits, const KeyGrads& d, In x) const {
  q_proj.backward(dev, dx, as_rows(dq), x);
  g_proj.backward(dev, dx, d_logits.view({d_logits.dim(0), d_logits.dim(1) * 3}), x, Write::add);
  if (config.shared_kv) {  // one projection: its output's gradient is the sum of the three
    op::add(dev, d.k_cmp, d.k_slc);
    op::add(dev, d.k_cmp, d.k_win);
    op::add(dev, d.v_cmp, d.v_slc);
    op::add(dev, d.v_cmp, d.v_win);
  }
  k_proj.cmp.backward(dev, dx, as_rows(d.k_cmp), x, Write::add);
  v_proj.cmp.backward(dev, dx, as_rows(d.v_cmp), x, Write::add);
  if (config.shared_kv) return;
  k_proj.slc.backward(dev, dx, as_rows(d.k_slc), x, Write::add);
  v_proj.slc.backward(dev, dx, as_rows(d.v_slc), x, Write::add);
  k_proj.win.backward(dev, dx, as_rows(d.k_win), x, Write::add);
  v_proj.win.backward(dev, dx, as_rows(d.v_win), x, Write::add);
}

}  // namespace nsa
