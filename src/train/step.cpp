#include "train/step.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "core/transfer.h"
#include "train/log.h"
#include "train/look.h"
#include "train/optimizer.h"
#include "train/schedule.h"

namespace nsa {

namespace {

// One number of BatchBuffers::sums.
Tensor loss_sum(const BatchBuffers& batch) { return batch.sums.rows(0, 1); }
Tensor squares_sum(const BatchBuffers& batch) { return batch.sums.rows(1, 2); }
Tensor hits_sum(const BatchBuffers& batch) { return batch.sums.rows(1, 2); }

// Why this step must not reach the optimizer; "" when it may.
std::string reason_to_skip(const StepResult& r, std::int64_t counted, double skip_z) {
  if (counted == 0) return kNoTargets;
  if (!std::isfinite(r.loss) || !std::isfinite(r.grad_norm)) return "non-finite";
  if (skip_z > 0 && (r.z_loss.value_or(0) > skip_z || r.z_norm.value_or(0) > skip_z)) return "outlier";
  return "";
}

}  // namespace

BatchBuffers::BatchBuffers(Device& dev, const Config& config) {
  const std::int64_t B = config.train.micro_batch, T = config.data.sequence_length;
  tokens = dev.params.take(DType::i32, {B, T}, Purpose::activations);
  targets = dev.params.take(DType::i32, {B, T}, Purpose::activations);
  losses = dev.params.take(DType::f32, {B * T}, Purpose::activations);
  hits = dev.params.take(DType::f32, {B * T}, Purpose::activations);
  sums = dev.params.take(DType::f32, {2}, Purpose::activations);
  looks = take_looks(dev, config);
}

BatchBuffers BatchBuffers::first(std::int64_t b) const {
  BatchBuffers part;
  part.tokens = tokens.rows(0, b);
  part.targets = targets.rows(0, b);
  part.losses = losses.rows(0, b * tokens.dim(1));
  part.hits = hits.rows(0, b * tokens.dim(1));
  part.sums = sums;
  return part;
}

StepResult train_step(Device& dev, Gpt& gpt, data::Loader& loader, const Config& config, const BatchBuffers& batch,
                      OutlierWindow& losses, OutlierWindow& norms, TrainState& state, const LookAtBlock& look) {
  const TrainConfig& train = config.train;
  const std::int64_t B = train.micro_batch, micro_steps = config.accumulation();
  StepResult r;
  r.lr = learning_rate(train.schedule, train.optimizer.lr, state.step, config.total_steps());

  // gradient of the mean loss over the targets of the batch that count, one micro-batch at a time
  const std::int64_t counted = loader.counted(state.position, micro_steps * B);
  op::fill(dev, gpt.params().slabs().grad, 0.0f);
  for (std::int64_t micro = 0; micro < micro_steps; ++micro) {
    const data::HostBatch& next = loader.batch(state.position);
    upload(batch.tokens, next.inputs);
    upload(batch.targets, next.targets);
    const float scale = 1.0f / static_cast<float>(std::max<std::int64_t>(counted, 1));
    gpt.train(dev, batch.losses, batch.tokens, batch.targets, scale, train.recompute,
              micro + 1 == micro_steps ? look : LookAtBlock{});
    op::sum(dev, loss_sum(batch), batch.losses, micro ? Write::add : Write::overwrite);
    state.position += B;
  }
  op::sum_squares(dev, squares_sum(batch), gpt.params().slabs().grad, Write::overwrite);
  const std::vector<float> sums = downloaded<float>(batch.sums);  // here the host waits, once a step
  r.loss = counted ? static_cast<double>(sums[0]) / static_cast<double>(counted) : std::nan("");
  r.grad_norm = counted ? std::sqrt(static_cast<double>(sums[1])) : std::nan("");

  // never let a broken step into the weights
  r.z_loss = losses.z(r.loss);
  r.z_norm = norms.z(r.grad_norm);
  r.skipped = reason_to_skip(r, counted, train.skip_outlier_z);
  losses.observe(r.loss);  // an outlier too: otherwise a loss that stays higher is an outlier for ever
  norms.observe(r.grad_norm);
  if (r.skipped.empty()) {
    ++state.optimizer_steps;
    state.skipped_in_row = 0;
    adamw_step(dev, gpt.params(), train.optimizer, r.lr, state.optimizer_steps,
               clip_factor(r.grad_norm, train.grad_clip));
  } else {
    ++state.skipped;
    ++state.skipped_in_row;
  }
  ++state.step;
  state.tokens += train.batch_tokens;
  state.recent_losses = losses.values();
  state.recent_norms = norms.values();
  return r;
}

std::int64_t sequences_of(const data::TokenData& data, std::int64_t micro_batches, std::int64_t B) {
  return micro_batches ? std::min(data.sequences(), micro_batches * B) : data.sequences();
}

namespace {

// The losses and hits of a validated micro-batch, sequence by sequence, to the shards they are from.
void add_to_shards(std::vector<Validation::Part>& shards, const data::TokenData& data, std::int64_t first,
                   const BatchBuffers& part, const std::vector<std::int32_t>& targets) {
  const std::vector<float> losses = downloaded<float>(part.losses), hits = downloaded<float>(part.hits);
  for (std::size_t i = 0; i < losses.size(); ++i) {
    Validation::Part& shard = shards[data.shard_of(first + static_cast<std::int64_t>(i) / part.tokens.dim(1))];
    shard.loss += static_cast<double>(losses[i]);
    shard.accuracy += static_cast<double>(hits[i]);
    shard.counted += targets[i] >= 0;
  }
}

}  // namespace

Validation validate(Device& dev, const Gpt& gpt, const data::TokenData& data, std::int64_t micro_batches,
                    const BatchBuffers& batch, const std::vector<std::int32_t>& token_bytes) {
  const std::int64_t B = batch.tokens.dim(0), T = batch.tokens.dim(1);
  const std::int64_t sequences = sequences_of(data, micro_batches, B);
  std::vector<std::int32_t> tokens(static_cast<std::size_t>(B * T)), targets(tokens.size());
  Validation v;
  v.tokens = sequences * T;
  if (data.masked() && data.shards().size() > 1) v.shards.resize(data.shards().size());
  for (std::int64_t first = 0; first < sequences; first += B) {
    const BatchBuffers part = batch.first(std::min(B, sequences - first));
    for (std::int64_t b = 0; b < part.tokens.dim(0); ++b)
      v.counted += data.read(first + b, tokens.data() + b * T, targets.data() + b * T);
    upload(part.tokens, tokens.data());
    upload(part.targets, targets.data());
    gpt.evaluate(dev, part.losses, part.hits, part.tokens, part.targets);
    op::sum(dev, loss_sum(part), part.losses, Write::overwrite);
    op::sum(dev, hits_sum(part), part.hits, Write::overwrite);
    const std::vector<float> sums = downloaded<float>(part.sums);
    v.loss += static_cast<double>(sums[0]);
    v.accuracy += static_cast<double>(sums[1]);
    if (!v.shards.empty()) add_to_shards(v.shards, data, first, part, targets);
    if (token_bytes.empty()) continue;
    for (std::int64_t i = 0; i < part.targets.numel(); ++i) {
      const std::int32_t target = targets[static_cast<std::size_t>(i)];
      if (target >= 0) v.bytes += token_bytes[static_cast<std::size_t>(target)];
    }
  }
  v.loss /= static_cast<double>(v.counted);
  v.accuracy /= static_cast<double>(v.counted);
  for (Validation::Part& shard : v.shards) {
    shard.loss /= static_cast<double>(shard.counted);
    shard.accuracy /= static_cast<double>(shard.counted);
  }
  if (token_bytes.empty() && sequences == data.sequences())
    v.bytes = std::llround(data.bytes_per_token() * static_cast<double>(v.tokens));
  return v;
}

std::optional<double> bits_per_byte(const Validation& v) {
  if (v.bytes <= 0 || v.counted < v.tokens) return {};
  return v.loss * static_cast<double>(v.tokens) / std::log(2.0) / static_cast<double>(v.bytes);
}

}  // namespace nsa
