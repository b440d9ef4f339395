#include "model/block.h"

namespace nsa {

Block Block::declare(Params& params, const std::string& prefix, const ModelConfig& model) {
  const std::int64_t C = model.hidden_size, F = model.intermediate_size;
  const float eps = static_cast<float>(model.norm_eps);
  Block block;
  block.input_norm = {&params.declare(prefix + "input_layernorm.weight", {C}, Init::ones), eps};
  if (model.attention.type == AttentionType::nsa) {
    block.attention = NsaAttention::declare(params, prefix + "self_attn.", model);
  } else {
    block.attention = FullAttention::declare(params, prefix + "self_attn.", model);
  }
  block.post_attention_norm = {&params.declare(prefix + "post_attention_layernorm.weight", {C}, Init::ones), eps};
  block.mlp.gate.w = &params.declare(prefix + "mlp.gate_proj.weight", {F, C});
  block.mlp.up.w = &params.declare(prefix + "mlp.up_proj.weight", {F, C});
  block.mlp.down.w = &params.declare(prefix + "mlp.down_proj.weight", {C, F}, Init::residual);
  return block;
}

Block::Saved Block::take(Device& dev, BatchShape batch) const {
  const std::int64_t N = batch.N(), C = input_norm.w->shape[0];
  const auto activation = [&](const Shape& shape) { return dev.work.take(batch.dtype, shape, Purpose::activations); };
  const auto statistics = [&] { return dev.work.take(DType::f32, {N}, Purpose::activations); };
  Saved s;
  s.h_attn = activation({N, C});
  s.rstd_attn = statistics();
  std::visit([&](const auto& layer) { s.attention = layer.take(dev, batch); }, attention);
  s.x_mid = activation({N, C});
  s.h_mlp = activation({N, C});
  s.rstd_mlp = statistics();
  s.mlp = mlp.take(dev, N, batch.dtype);
  return s;
}

namespace {

// Calls f(layer, its Saved) for whichever attention the block has.
template <class F>
void with_attention(const Block& block, const Block::Saved& s, F&& f) {
  if (const auto* layer = std::get_if<NsaAttention>(&block.attention)) {
    f(*layer, std::get<NsaAttention::Saved>(s.attention));
  } else {
    f(std::get<FullAttention>(block.attention), std::get<FullAttention::Saved>(s.attention));
  }
}

}  // namespace

void Block::fill(Device& dev, const Saved& s, In x, In rope) const {
  input_norm.forward(dev, s.h_attn, s.rstd_attn, x);
  with_attention(*this, s, [&](const auto& layer, const auto& saved) {
    ArenaScope scope(dev.work);
    const Tensor y = dev.work.take(x.dtype, x.shape, Purpose::activations);
    layer.fill(dev, saved, s.h_attn, rope);
    layer.output(dev, y, saved);
    op::add_rmsnorm_forward(dev, s.x_mid, s.h_mlp, s.rstd_mlp, x, y, post_attention_norm.w->w, post_attention_norm.eps);
  });
  mlp.fill(dev, s.mlp, s.h_mlp);
}

void Block::output(Device& dev, Out x_out, const Saved& s) const {
  op::copy(dev, x_out, s.x_mid);
  mlp.add_output(dev, x_out, s.mlp);
}

void Block::backward(Device& dev, InOut d, In x, const Saved& s, In rope) const {
  ArenaScope scope(dev.work);
  const Tensor dh = dev.work.take(x.dtype, x.shape, Purpose::activations);
  mlp.backward(dev, dh, d, s.h_mlp, s.mlp);
  post_attention_norm.backward(dev, d, dh, s.x_mid, s.rstd_mlp, Write::add);
  with_attention(*this, s,
                 [&](const auto& layer, const auto& saved) { layer.backward(dev, dh, d, s.h_attn, saved, rope); });
  input_norm.backward(dev, d, dh, x, s.rstd_attn, Write::add);
}

}  // namespace nsa
