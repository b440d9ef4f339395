// A tiny model with its memory, for tests: plan, reserve, build, initialise.
#pragma once

#include <memory>

#include "model/gpt.h"
#include "ref/compare.h"

namespace nsa::test {

inline ModelConfig small_config(AttentionType type) {
  ModelConfig c;
  c.vocab_size = 37, c.hidden_size = 32, c.num_layers = 2, c.intermediate_size = 48;
  AttentionConfig& a = c.attention;
  a.type = type;
  a.num_heads = 4, a.num_kv_heads = 2, a.head_dim = 16, a.v_head_dim = 8;
  a.compress_block = 8, a.compress_stride = 4, a.select_block = 16, a.select_count = 4,
  a.window = type == AttentionType::nsa ? 24 : 0;
  c.init_std = 0.1;
  check(c);
  return c;
}

/// Arenas exactly as large as planned for training at (B,T).
struct SmallModel {
  Device dev;
  std::size_t planned_params = 0, planned_work = 0;
  std::unique_ptr<Gpt> gpt;
  Tensor tokens, targets, losses;
  std::vector<std::int32_t> token_values;

  SmallModel(const ModelConfig& config, std::int64_t B, std::int64_t T, Recompute recompute = Recompute::none,
             int threads = 2) {
    Device plan;
    plan.threads = dev.threads = threads;
    plan.where = dev.where = place_under_test();
    build(plan, config, B, T);
    gpt->train(plan, losses, tokens, targets, 1.0f, recompute);
    gpt.reset();
    planned_params = plan.params.peak(), planned_work = plan.work.peak();
    dev.reserve(planned_params, planned_work);
    build(dev, config, B, T);
    gpt->params().initialise(dev, 7, config.init_std, config.num_layers);
    const Rng rng(3, "tokens");
    for (std::int64_t i = 0; i < B * T; ++i) {
      token_values.push_back(static_cast<std::int32_t>(rng.uniform(static_cast<std::uint64_t>(i)) *
                                                       static_cast<double>(config.vocab_size)));
    }
    std::vector<std::int32_t> next;
    for (std::int64_t b = 0; b < B; ++b)
      for (std::int64_t t = 0; t < T; ++t) next.push_back(token_values[static_cast<std::size_t>(b * T + (t + 1) % T)]);
    set(tokens, token_values);
    set(targets, next);
  }

  double train(Recompute recompute = Recompute::none) {
    op::fill(dev, gpt->params().slabs().grad, 0.0f);
    gpt->train(dev, losses, tokens, targets, 1.0f / static_cast<float>(losses.numel()), recompute);
    double sum = 0;
    for (double loss : values(losses)) sum += loss;
    return sum / static_cast<double>(losses.numel());
  }

 private:
  void build(Device& on, const ModelConfig& config, std::int64_t B, std::int64_t T) {
    gpt = std::make_unique<Gpt>(on, config, T, Params::With::training);
    tokens = on.params.take(DType::i32, {B, T}, Purpose::activations);
    targets = on.params.take(DType::i32, {B, T}, Purpose::activations);
    losses = on.params.take(DType::f32, {B * T}, Purpose::activations);
  }
};

/// All gradients, one after the other.
inline std::vector<float> gradients(const Gpt& gpt) {
  std::vector<float> all;
  for (const Param& p : gpt.params().list()) {
    const std::vector<float> one = downloaded<float>(p.grad);
    all.insert(all.end(), one.begin(), one.end());
  }
  return all;
}

}  // namespace nsa::test
