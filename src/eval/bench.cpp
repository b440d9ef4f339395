#include "eval/bench.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <functional>

#include "core/median.h"
#include "core/profile.h"
#include "core/rng.h"
#include "core/transfer.h"
#include "model/flops.h"
#include "train/make_device.h"
#include "train/optimizer.h"
#include "train/plan.h"
#include "train/step.h"

namespace nsa {

namespace {

double ms_of(const std::function<void()>& f) {
  const auto start = std::chrono::steady_clock::now();
  f();
  return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
}

// The peak before and after the timed part: a neighbour that came or went shows, and the larger number keeps shares
// honest.
Peak larger(const Peak& a, const Peak& b) {
  return {a.threads, std::max(a.gflops, b.gflops), std::max(a.gbytes_s, b.gbytes_s)};
}

void fill_random(In t, const std::string& name, double scale) {
  const Rng rng(1, name);
  std::vector<float> v(static_cast<std::size_t>(t.numel()));
  for (std::size_t i = 0; i < v.size(); ++i) v[i] = static_cast<float>(scale * (2 * rng.uniform(i) - 1));
  if (t.dtype == DType::f32) return upload(t, v.data());
  std::vector<bf16> rounded;
  for (float x : v) rounded.push_back(bf16(x));
  upload(t, rounded.data());
}

// Useful GFLOP of each op in one step, by name; ops that are not here are bound by memory.
double step_gflop(const std::string& op, const Config& config) {
  const Flops flops = flops_per_token(config.model, config.data.sequence_length);
  const double tokens = static_cast<double>(config.train.batch_tokens) * 1e-9;
  const bool is_full = config.model.attention.type == AttentionType::full;
  if (op == "matmul_forward" || op == "matmul_backward_input" || op == "matmul_backward_weight")
    return flops.matrices * tokens;
  if (is_full && op == "attention_forward") return flops.attention * tokens;
  if (is_full && op == "attention_backward") return 2 * flops.attention * tokens;
  return 0;
}

// Of the embedding's table only the rows of the tokens move: forward reads and writes a row, backward also reads what
// it adds to.
double step_gbytes(const std::string& op, double bytes_of_arguments, const Config& config) {
  const double rows = static_cast<double>(config.train.batch_tokens) * static_cast<double>(config.model.hidden_size) *
                      static_cast<double>(bytes_of(compute_type(config)));
  if (op == "embedding_forward") return 2e-9 * rows;
  if (op == "embedding_backward") return 3e-9 * rows;
  return 1e-9 * bytes_of_arguments;
}

std::vector<BenchRow> rows_of(const Profile& profile, double ms_total,
                              const std::function<double(const std::string&)>& gflop) {
  std::vector<BenchRow> rows;
  double ms_ops = 0;
  for (const auto& [name, entry] : profile.ops) {
    rows.push_back({name, entry.seconds * 1e3, static_cast<double>(entry.calls), gflop(name), 1e-9 * entry.bytes});
    ms_ops += entry.seconds * 1e3;
  }
  std::sort(rows.begin(), rows.end(), [](const BenchRow& a, const BenchRow& b) { return a.ms > b.ms; });
  rows.push_back({"outside ops", ms_total - ms_ops, 0, 0, 0});
  return rows;
}

}  // namespace

TrainBench bench_train(const Config& config, int repeat) {
  const MemoryPlan plan = plan_memory(config);
  Device dev = make_device(config);
  dev.reserve(plan.params.bytes, plan.work.bytes);
  const std::int64_t B = config.train.micro_batch, T = config.data.sequence_length;
  Gpt gpt(dev, config.model, T, Params::With::training, compute_type(config));
  gpt.params().initialise(dev, 1, config.model.init_std, config.model.num_layers);
  const BatchBuffers batch(dev, config);
  const Rng rng(1, "tokens");
  std::vector<std::int32_t> ids(static_cast<std::size_t>(B * T) + 1);
  for (std::size_t i = 0; i < ids.size(); ++i)
    ids[i] = static_cast<std::int32_t>(rng.bits(i) % static_cast<std::uint64_t>(config.model.vocab_size));
  upload(batch.tokens, ids.data());
  upload(batch.targets, ids.data() + 1);
  std::int64_t t = 0;
  const auto step = [&] {
    op::fill(dev, gpt.params().slabs().grad, 0.0f);
    for (std::int64_t micro = 0; micro < config.accumulation(); ++micro) {
      gpt.train(dev, batch.losses, batch.tokens, batch.targets, 1.0f / static_cast<float>(config.train.batch_tokens),
                config.train.recompute);
    }
    op::sum(dev, batch.sums.rows(0, 1), batch.losses, Write::overwrite);
    op::sum_squares(dev, batch.sums.rows(1, 2), gpt.params().slabs().grad, Write::overwrite);
    const double norm = std::sqrt(static_cast<double>(downloaded<float>(batch.sums)[1]));
    adamw_step(dev, gpt.params(), config.train.optimizer, 1e-4, ++t, clip_factor(norm, config.train.grad_clip));
  };

  TrainBench bench;
  step();
  const Peak before = measure_peak(dev.threads);
  std::vector<double> ms;
  for (int i = 0; i < repeat; ++i) ms.push_back(ms_of(step));
  bench.peak = larger(before, measure_peak(dev.threads));
  bench.ms_best = *std::min_element(ms.begin(), ms.end());
  bench.ms_median = median(ms);
  bench.tokens = static_cast<double>(config.train.batch_tokens);
  bench.gflop = flops_per_token(config.model, T).training() * bench.tokens * 1e-9;
  Profile profile;
  dev.profile = &profile;
  bench.ms_profiled = ms_of(step);
  bench.ops = rows_of(profile, bench.ms_profiled, [&](const std::string& op) { return step_gflop(op, config); });
  for (BenchRow& row : bench.ops) {
    row.gbytes = step_gbytes(row.name, 1e9 * row.gbytes, config);
    bench.gbytes += row.gbytes;
  }
  return bench;
}

double attention_gflop(const AttentionSizes& sizes) {
  const AttentionConfig& a = sizes.attention;
  double pairs = attention_pairs(sizes.T, a.window);
  if (a.type == AttentionType::nsa) {
    const NsaShape geometry = nsa_shape(a);
    pairs =
        compressed_pairs(sizes.T, geometry) + selected_pairs(sizes.T, geometry) + attention_pairs(sizes.T, geometry.w);
  }
  return 2e-9 * static_cast<double>(a.num_heads) * static_cast<double>(a.head_dim + a.Dv()) * pairs;
}

namespace {

// One layer's attention with every projection left out: q, k, v and d_o are given.
struct AttentionRun {
  Device& dev;
  AttentionConfig config;
  NsaShape geometry;
  BatchShape batch;
  Tensor q, k, v, d_o, o, lse, delta, dq, dk, dv;  // both kinds
  Tensor kc, vc, dkc, dvc, o_cmp, o_win, lse_cmp, lse_win, o_sum, gates, d_logits, deltas, selected, dk2, dv2;

  AttentionRun(Device& device, const AttentionSizes& sizes)
      : dev(device), config(sizes.attention), geometry(nsa_shape(config)), batch{1, sizes.T, sizes.type} {
    const std::int64_t T = batch.T, H = config.num_heads, Hkv = config.num_kv_heads, Dk = config.head_dim,
                       Dv = config.Dv();
    const auto take = [&](const Shape& s) { return dev.params.take(batch.dtype, s, Purpose::activations); };
    const auto statistics = [&](const Shape& s) { return dev.params.take(DType::f32, s, Purpose::activations); };
    q = take({1, T, H, Dk}), k = take({1, T, Hkv, Dk}), v = take({1, T, Hkv, Dv}), d_o = take({1, T, H, Dv});
    o = take({1, T, H, Dv}), lse = statistics({1, T, H}), delta = statistics({1, T, H});
    dq = take(q.shape), dk = take(k.shape), dv = take(v.shape);
    if (config.type == AttentionType::nsa) {
      const std::int64_t Tc = geometry.Tc(T);
      kc = take({1, Tc, Hkv, Dk}), vc = take({1, Tc, Hkv, Dv}), dkc = take(kc.shape), dvc = take(vc.shape);
      o_cmp = take(o.shape), o_win = take(o.shape), o_sum = take(o.shape), lse_cmp = statistics(lse.shape),
      lse_win = statistics(lse.shape);
      gates = statistics({T, H, 3}), d_logits = take(gates.shape), deltas = statistics({3, T, H});
      selected = dev.params.take(DType::i32, {1, Hkv, T, geometry.n}, Purpose::activations);
      dk2 = take(k.shape), dv2 = take(v.shape);
    }
    if (dev.params.planning()) return;
    fill_random(q, "q", 1.7), fill_random(k, "k", 1.7), fill_random(v, "v", 1.7), fill_random(d_o, "d_o", 1.7);
  }
  void forward() const {
    if (config.type == AttentionType::full) return op::attention_forward(dev, o, lse, q, k, v, config.window);
    op::compress_forward(dev, kc, {}, k, {}, Compressor::mean, geometry);
    op::compress_forward(dev, vc, {}, v, {}, Compressor::mean, geometry);
    op::attend_compressed_forward(dev, o_cmp, lse_cmp, q, kc, vc, geometry);
    op::select_blocks(dev, selected, q, kc, lse_cmp, geometry);
    op::attend_selected_forward(dev, o, lse, q, k, v, selected, geometry);
    op::attention_forward(dev, o_win, lse_win, q, k, v, geometry.w);
    op::fill(dev, gates, 0.0f);
    const Shape heads{batch.T, config.num_heads, config.Dv()};
    op::gate_forward(dev, o_sum.view(heads), gates, o_cmp.view(heads), o.view(heads), o_win.view(heads));
  }
  void backward() const {
    if (config.type == AttentionType::full) {
      op::attention_delta(dev, delta, o, d_o);
      return op::attention_backward(dev, dq, dk, dv, d_o, delta, lse, q, k, v, config.window, Write::overwrite);
    }
    const Shape heads{batch.T, config.num_heads, config.Dv()};
    op::gate_backward(dev, d_logits, deltas, o_cmp.view(heads), o.view(heads), o_win.view(heads), gates,
                      d_o.view(heads));
    op::attend_compressed_backward(dev, dq, dkc, dvc, o_cmp, branch(0), lse_cmp, q, kc, vc, geometry, Write::overwrite);
    op::compress_backward(dev, dk2, {}, dkc, {}, k, {}, Compressor::mean, geometry);
    op::compress_backward(dev, dv2, {}, dvc, {}, v, {}, Compressor::mean, geometry);
    op::attend_selected_backward(dev, dq, dk, dv, o, branch(1), lse, q, k, v, selected, geometry, Write::add);
    op::attention_backward(dev, dq, dk2, dv2, o_win, branch(2), lse_win, q, k, v, geometry.w, Write::add);
  }

 private:
  Tensor branch(std::int64_t b) const { return deltas.rows(b, b + 1).view({1, batch.T, config.num_heads}); }
};

}  // namespace

std::vector<AttentionBench> bench_attention(const AttentionSizes& sizes, bool backward, int threads, int repeat) {
  Device plan, dev;
  plan.threads = dev.threads = threads;
  {
    const AttentionRun run(plan, sizes);
    run.forward();
    if (backward) run.backward();
  }
  dev.reserve(plan.params.peak(), plan.work.peak());
  const AttentionRun run(dev, sizes);
  run.forward();
  if (backward) run.backward();

  std::vector<double> forward_ms, backward_ms;
  Profile forward_profile, backward_profile;
  for (int i = 0; i < repeat; ++i) {  // gate_backward consumes the branch outputs: always a forward first
    dev.profile = i == 0 ? &forward_profile : nullptr;
    forward_ms.push_back(ms_of([&] { run.forward(); }));
    dev.profile = i == 0 ? &backward_profile : nullptr;
    if (backward) backward_ms.push_back(ms_of([&] { run.backward(); }));
  }
  const std::string type = kAttentionTypes[static_cast<std::size_t>(sizes.attention.type)];
  const auto none = [](const std::string&) { return 0.0; };
  std::vector<AttentionBench> out;
  const auto add = [&](const char* pass, const std::vector<double>& ms, double gflop, const Profile& profile) {
    AttentionBench b{type,
                     pass,
                     sizes.T,
                     median(ms),
                     *std::min_element(ms.begin(), ms.end()),
                     gflop,
                     0,
                     rows_of(profile, ms.front(), none)};
    for (const BenchRow& row : b.ops) b.gbytes += row.gbytes;
    out.push_back(b);
  };
  add("forward", forward_ms, attention_gflop(sizes), forward_profile);
  if (backward) add("backward", backward_ms, 2 * attention_gflop(sizes), backward_profile);
  return out;
}

}  // namespace nsa
