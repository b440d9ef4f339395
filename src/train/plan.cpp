#include "train/plan.h"

#include "train/look.h"
#include "train/make_device.h"
#include "train/optimizer.h"
#include "train/step.h"

namespace nsa {

namespace {

ArenaPlan peak_of(const Arena& arena) { return {arena.peak(), arena.by_purpose_at_peak()}; }

// What generate() takes (eval/generate.cpp).
void plan_next_logits(Device& dev, const Gpt& gpt, std::int64_t T) {
  ArenaScope scope(dev.work);
  const Tensor logits = dev.work.take(DType::f32, {1, gpt.config().vocab_size}, Purpose::logits);
  const Tensor tokens = dev.work.take(DType::i32, {1, T}, Purpose::activations);
  gpt.next_logits(dev, logits, tokens, 0);
}

}  // namespace

MemoryPlan plan_memory(const Config& config) {
  Device dev = make_device(config);
  const std::int64_t B = config.train.micro_batch, T = config.data.sequence_length;
  Gpt gpt(dev, config.model, T, Params::With::training, compute_type(config));
  const BatchBuffers batch(dev, config);
  op::fill(dev, gpt.params().slabs().grad, 0.0f);
  gpt.train(dev, batch.losses, batch.tokens, batch.targets, 1.0f, config.train.recompute,
            batch.looks ? look_at_branches(dev, batch.looks, config) : LookAtBlock{});
  op::sum(dev, batch.sums.rows(0, 1), batch.losses, Write::overwrite);
  op::sum_squares(dev, batch.sums.rows(1, 2), gpt.params().slabs().grad, Write::overwrite);
  adamw_step(dev, gpt.params(), config.train.optimizer, 0, 1, 1);
  if (!config.data.val.empty()) {
    for (std::int64_t b : {B, std::int64_t{1}})
      gpt.evaluate(dev, batch.first(b).losses, batch.first(b).hits, batch.first(b).tokens, batch.first(b).targets);
  }
  if (config.eval.sample_every) plan_next_logits(dev, gpt, T);
  return {peak_of(dev.params), peak_of(dev.work)};
}

MemoryPlan plan_generation(const Config& config) {
  Device dev = make_device(config);
  const Gpt gpt(dev, config.model, config.data.sequence_length, Params::With::weights, compute_type(config));
  plan_next_logits(dev, gpt, config.data.sequence_length);
  return {peak_of(dev.params), peak_of(dev.work)};
}

std::vector<MemoryRow> memory_rows(const MemoryPlan& plan) {
  std::vector<MemoryRow> rows;
  const auto add = [&](const char* arena, const ArenaPlan& part) {
    for (std::size_t i = 0; i < part.by_purpose.size(); ++i) {
      if (part.by_purpose[i])
        rows.push_back({arena, name_of(static_cast<Purpose>(i)), static_cast<std::int64_t>(part.by_purpose[i])});
    }
  };
  add("parameters", plan.params);
  add("work", plan.work);
  return rows;
}

std::vector<ParameterRow> parameter_rows(const Params& params) {
  std::vector<ParameterRow> rows;
  for (const Param& p : params.list()) {
    const auto has = [&](const char* part) { return p.name.find(part) != std::string::npos; };
    const std::string part = has("embed_tokens")  ? "embedding"
                             : has("lm_head")     ? "head"
                             : has(".mlp.")       ? "feed-forward"
                             : has(".self_attn.") ? "attention"
                                                  : "norms";
    auto row = rows.begin();
    while (row != rows.end() && row->part != part) ++row;
    if (row == rows.end()) row = rows.insert(row, {part, 0, 0});
    ++row->tensors;
    row->elements += p.shape.numel();
  }
  return rows;
}

std::vector<std::pair<std::string, std::string>> config_rows(const Config& c, std::int64_t padding) {
  const AttentionConfig& a = c.model.attention;
  std::vector<std::pair<std::string, std::string>> rows;
  const std::string padded = padding > 0 ? fmt::format(" ({} rows of them padding)", padding) : "";
  rows.push_back({"model", fmt::format("{} layers, {} wide, feed-forward {}, vocabulary {}{}{}", c.model.num_layers,
                                       c.model.hidden_size, c.model.intermediate_size, c.model.vocab_size, padded,
                                       c.model.tie_embeddings ? ", tied head" : "")});
  rows.push_back({"attention", fmt::format("{}, {} heads on {}, head dims {}/{}{}",
                                           kAttentionTypes[static_cast<std::size_t>(a.type)], a.num_heads,
                                           a.num_kv_heads, a.head_dim, a.Dv(), a.qk_norm ? ", QK-norm" : "")});
  if (a.type == AttentionType::nsa) {
    rows.push_back(
        {"", fmt::format("blocks {}/{} ({}), select {} of {}, window {}", a.compress_block, a.compress_stride,
                         kCompressors[static_cast<std::size_t>(a.compressor)], a.select_count, a.select_block, a.w())});
  }
  rows.push_back({"batch", fmt::format("{} tokens = {} x {} sequences of {}", c.train.batch_tokens, c.accumulation(),
                                       c.train.micro_batch, c.data.sequence_length)});
  rows.push_back({"schedule", fmt::format("{} steps, lr {} ({}), warm-up {}", c.total_steps(), c.train.optimizer.lr,
                                          kScheduleTypes[static_cast<std::size_t>(c.train.schedule.type)],
                                          c.train.schedule.warmup_steps)});
  rows.push_back({"precision", fmt::format("{}, recompute {}", precision_in_words(c),
                                           kRecomputes[static_cast<std::size_t>(c.train.recompute)])});
  return rows;
}

}  // namespace nsa
