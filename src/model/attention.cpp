#include "model/attention.h"

namespace nsa {

Tensor as_rows(const Tensor& heads) { return heads.view({heads.dim(0) * heads.dim(1), heads.dim(2) * heads.dim(3)}); }

namespace {

Tensor as_head_rows(const Tensor& heads) {
  return heads.view({heads.dim(0) * heads.dim(1) * heads.dim(2), heads.dim(3)});
}

}  // namespace

HeadNorm::Saved HeadNorm::take(Device& dev, const Shape& heads, DType type) const {
  Saved s;
  if (!*this) return s;
  s.pre = dev.work.take(type, heads, Purpose::activations);
  s.rstd = dev.work.take(DType::f32, {heads[0] * heads[1] * heads[2]}, Purpose::activations);
  return s;
}

void HeadNorm::forward(Device& dev, Out y, const Saved& s) const {
  norm.forward(dev, as_head_rows(y), s.rstd, as_head_rows(s.pre));
}

void HeadNorm::backward(Device& dev, InOut dx, const Saved& s) const {
  const Tensor rows = as_head_rows(dx);
  norm.backward(dev, rows, rows, as_head_rows(s.pre), s.rstd);
}

FullAttention FullAttention::declare(Params& params, const std::string& prefix, const ModelConfig& model) {
  const AttentionConfig& a = model.attention;
  const std::int64_t C = model.hidden_size, H = a.num_heads, Hkv = a.num_kv_heads, Dk = a.head_dim, Dv = a.Dv();
  FullAttention layer;
  layer.config = a;
  layer.q_proj.w = &params.declare(prefix + "q_proj.weight", {H * Dk, C});
  layer.k_proj.w = &params.declare(prefix + "k_proj.weight", {Hkv * Dk, C});
  layer.v_proj.w = &params.declare(prefix + "v_proj.weight", {Hkv * Dv, C});
  layer.o_proj.w = &params.declare(prefix + "o_proj.weight", {C, H * Dv}, Init::residual);
  if (a.qk_norm) {
    const float eps = static_cast<float>(model.norm_eps);
    layer.q_norm.norm = {&params.declare(prefix + "q_norm.weight", {Dk}, Init::ones), eps};
    layer.k_norm.norm = {&params.declare(prefix + "k_norm.weight", {Dk}, Init::ones), eps};
  }
  return layer;
}

FullAttention::Saved FullAttention::take(Device& dev, BatchShape batch) const {
  const std::int64_t B = batch.B, T = batch.T, H = config.num_heads, Hkv = config.num_kv_heads, Dk = config.head_dim,
                     Dv = config.Dv();
  const auto activation = [&](const Shape& shape) { return dev.work.take(batch.dtype, shape, Purpose::activations); };
  Saved s;
  s.q = activation({B, T, H, Dk});
  s.k = activation({B, T, Hkv, Dk});
  s.v = activation({B, T, Hkv, Dv});
  s.o = activation({B, T, H, Dv});
  s.lse = dev.work.take(DType::f32, {B, T, H}, Purpose::activations);
  s.q_norm = q_norm.take(dev, s.q.shape, batch.dtype);
  s.k_norm = k_norm.take(dev, s.k.shape, batch.dtype);
  return s;
}

void FullAttention::fill(Device& dev, const Saved& s, In x, In rope) const {
  q_proj.forward(dev, as_rows(q_norm ? s.q_norm.pre : s.q), x);
  k_proj.forward(dev, as_rows(k_norm ? s.k_norm.pre : s.k), x);
  v_proj.forward(dev, as_rows(s.v), x);
  if (q_norm) q_norm.forward(dev, s.q, s.q_norm);
  if (k_norm) k_norm.forward(dev, s.k, s.k_norm);
  op::rope_forward(dev, s.q, rope, 1);
  op::rope_forward(dev, s.k, rope, 1);
  op::attention_forward(dev, s.o, s.lse, s.q, s.k, s.v, config.window);
}

void FullAttention::output(Device& dev, Out y, const Saved& s) const { o_proj.forward(dev, y, as_rows(s.o)); }

void FullAttention::backward(Device& dev, Out dx, In dy, In x, const Saved& s, In rope) const {
  ArenaScope scope(dev.work);
  const auto activation = [&](const Shape& shape) { return dev.work.take(x.dtype, shape, Purpose::activations); };
  const Tensor d_o = activation(s.o.shape), delta = dev.work.take(DType::f32, s.lse.shape, Purpose::activations);
  const Tensor dq = activation(s.q.shape), dk = activation(s.k.shape), dv = activation(s.v.shape);

  o_proj.backward(dev, as_rows(d_o), dy, as_rows(s.o));
  op::attention_delta(dev, delta, s.o, d_o);
  op::attention_backward(dev, dq, dk, dv, d_o, delta, s.lse, s.q, s.k, s.v, config.window, Write::overwrite);
  op::rope_backward(dev, dq, rope, 1);
  op::rope_backward(dev, dk, rope, 1);
  if (q_norm) q_norm.backward(dev, dq, s.q_norm);
  if (k_norm) k_norm.backward(dev, dk, s.k_norm);
  q_proj.backward(dev, dx, as_rows(dq), x);
  k_proj.backward(dev, dx, as_rows(dk), x, Write::add);
  v_proj.backward(dev, dx, as_rows(dv), x, Write::add);
}

}  // namespace nsa
