#include "model/gpt.h"

#include <algorithm>

namespace nsa {

Gpt::Gpt(Device& dev, const ModelConfig& config, std::int64_t max_T, Params::With with, DType type)
    : config_(config), type_(type) {
  embed_ = &params_.declare("model.embed_tokens.weight", {config.vocab_size, config.hidden_size});
  for (std::int64_t i = 0; i < config.num_layers; ++i)
    blocks_.push_back(Block::declare(params_, "model.layers." + std::to_string(i) + ".", config));
  norm_ = {&params_.declare("model.norm.weight", {config.hidden_size}, Init::ones),
           static_cast<float>(config.norm_eps)};
  if (!config.tie_embeddings) lm_head_ = &params_.declare("lm_head.weight", {config.vocab_size, config.hidden_size});
  params_.allocate(dev, with, type);
  rope_ = dev.params.take(DType::f32, {max_T, config.attention.head_dim / 2, 2}, Purpose::weights);
  if (rope_.data) op::rope_table(dev, rope_, config.rope_theta);
}

std::int64_t Gpt::head_rows(std::int64_t N) const {
  const std::int64_t budget =
      128 << 20;  // bytes of logits held at once: large enough that the head's GEMMs stay at full speed
  const std::int64_t rows = std::max<std::int64_t>(budget / (4 * config_.vocab_size), 64);
  return std::min(N, rows);
}

void Gpt::train(Device& dev, Out losses, In tokens, In targets, float scale, Recompute recompute,
                const LookAtBlock& look) const {
  ArenaScope scope(dev.work);
  const BatchShape batch = batch_of(tokens);
  const Shape rows{batch.N(), config_.hidden_size};
  const auto activation = [&] { return dev.work.take(type_, rows, Purpose::activations); };
  const Tensor flat_tokens = tokens.view({batch.N()});
  const std::size_t L = blocks_.size();

  std::vector<Tensor> x(L + 1);  // input of every block, then the last output
  std::vector<Block::Saved> saved(L);
  x[0] = activation();
  op::embedding_forward(dev, x[0], flat_tokens, embed_->w);
  for (std::size_t i = 0; i < L; ++i) {
    x[i + 1] = activation();
    if (recompute == Recompute::none) {
      saved[i] = blocks_[i].take(dev, batch);
      blocks_[i].fill(dev, saved[i], x[i], rope_);
      blocks_[i].output(dev, x[i + 1], saved[i]);
      if (look) look(static_cast<std::int64_t>(i), saved[i]);
    } else {
      ArenaScope block(dev.work);
      const Block::Saved s = blocks_[i].take(dev, batch);
      blocks_[i].fill(dev, s, x[i], rope_);
      blocks_[i].output(dev, x[i + 1], s);
      if (look) look(static_cast<std::int64_t>(i), s);
    }
  }

  const Tensor d = activation();
  {
    ArenaScope head(dev.work);
    const Tensor h = activation(), dh = activation();
    const Tensor rstd = dev.work.take(DType::f32, {batch.N()}, Purpose::activations);
    norm_.forward(dev, h, rstd, x[L]);
    head_losses(dev, losses, h, targets.view({batch.N()}), {dh, scale});
    norm_.backward(dev, d, dh, x[L], rstd);
  }
  for (std::size_t i = L; i-- > 0;) {
    ArenaScope block(dev.work);
    if (recompute == Recompute::block) {
      saved[i] = blocks_[i].take(dev, batch);
      blocks_[i].fill(dev, saved[i], x[i], rope_);
    }
    blocks_[i].backward(dev, d, x[i], saved[i], rope_);
  }
  op::embedding_backward(dev, embed_->grad, d, flat_tokens);
}

template <class F>
void Gpt::head_chunks(Device& dev, In h, F&& f) const {
  ArenaScope scope(dev.work);
  const std::int64_t N = h.dim(0), chunk = head_rows(N);
  const Tensor logits = dev.work.take(type_, {chunk, config_.vocab_size}, Purpose::logits);
  for (std::int64_t begin = 0; begin < N; begin += chunk) {
    const std::int64_t end = std::min(N, begin + chunk);
    const Tensor part = logits.rows(0, end - begin);
    op::matmul_forward(dev, part, h.rows(begin, end), head(), Write::overwrite);
    f(begin, end, part);
  }
}

void Gpt::head_losses(Device& dev, Out losses, In h, In targets, const HeadBackward& backward) const {
  head_chunks(dev, h, [&](std::int64_t begin, std::int64_t end, InOut logits) {
    op::cross_entropy_forward_backward(dev, losses.rows(begin, end), logits, targets.rows(begin, end), backward.scale);
    op::matmul_backward_weight(dev, head_grad(), logits, h.rows(begin, end));
    op::matmul_backward_input(dev, backward.dh.rows(begin, end), logits, head(), Write::overwrite);
  });
}

void Gpt::head_losses(Device& dev, Out losses, Out hits, In h, In targets) const {
  head_chunks(dev, h, [&](std::int64_t begin, std::int64_t end, In logits) {
    op::cross_entropy_forward(dev, losses.rows(begin, end), logits, targets.rows(begin, end));
    op::argmax_hits(dev, hits.rows(begin, end), logits, targets.rows(begin, end));
  });
}

void Gpt::forward_only(Device& dev, Out x, In tokens, const LookAtBlock& look) const {
  const BatchShape batch = batch_of(tokens);
  op::embedding_forward(dev, x, tokens.view({batch.N()}), embed_->w);
  for (std::size_t i = 0; i < blocks_.size(); ++i) {
    ArenaScope block(dev.work);
    const Block::Saved s = blocks_[i].take(dev, batch);
    blocks_[i].fill(dev, s, x, rope_);
    if (look) look(static_cast<std::int64_t>(i), s);
    blocks_[i].output(dev, x, s);  // x was read for the last time in fill
  }
}

void Gpt::evaluate(Device& dev, Out losses, Out hits, In tokens, In targets) const {
  ArenaScope scope(dev.work);
  const std::int64_t N = tokens.numel();
  const Tensor x = dev.work.take(type_, {N, config_.hidden_size}, Purpose::activations);
  const Tensor h = dev.work.take(type_, {N, config_.hidden_size}, Purpose::activations);
  const Tensor rstd = dev.work.take(DType::f32, {N}, Purpose::activations);
  forward_only(dev, x, tokens, {});
  norm_.forward(dev, h, rstd, x);
  head_losses(dev, losses, hits, h, targets.view({N}));
}

void Gpt::logits(Device& dev, Out logits, In tokens, const LookAtBlock& look) const {
  ArenaScope scope(dev.work);
  const std::int64_t N = tokens.numel();
  const Tensor x = dev.work.take(type_, {N, config_.hidden_size}, Purpose::activations);
  const Tensor h = dev.work.take(type_, {N, config_.hidden_size}, Purpose::activations);
  const Tensor rstd = dev.work.take(DType::f32, {N}, Purpose::activations);
  forward_only(dev, x, tokens, look);
  norm_.forward(dev, h, rstd, x);
  op::matmul_forward(dev, logits, h, head(), Write::overwrite);
}

void Gpt::next_logits(Device& dev, Out logits, In tokens, std::int64_t t) const {
  ArenaScope scope(dev.work);
  const std::int64_t T = tokens.dim(1);
  const Tensor x = dev.work.take(type_, {T, config_.hidden_size}, Purpose::activations);
  const Tensor h = dev.work.take(type_, {1, config_.hidden_size}, Purpose::activations);
  const Tensor rstd = dev.work.take(DType::f32, {1}, Purpose::activations);
  forward_only(dev, x, tokens, {});
  norm_.forward(dev, h, rstd, x.rows(t, t + 1));
  op::matmul_forward(dev, logits, h, head(), Write::overwrite);
}

}  // namespace nsa
