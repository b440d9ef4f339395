#include "eval/verify.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "core/json.h"
#include "core/safetensors.h"
#include "core/transfer.h"
#include "eval/golden_config.h"
#include "eval/selection.h"
#include "model/gpt.h"
#include "train/make_device.h"
#include "train/optimizer.h"

namespace nsa {

namespace {

// Relative RMS error of float32 against float64 (NSA.md "Precision"). AdamW divides a gradient by its own size, so
// weights after its steps carry more of the noise.
constexpr double kTolerance = 1e-5, kUpdatedTolerance = 1e-4;
// bf16 may be so many times as far from float64 as float32 is on weights and inputs rounded to bf16. The files here
// come out at 1.2 to 3.1 times; a plain bf16 program, which rounds what it stores in between as well, is at about
// twice.
constexpr double kOverRounded = 4;
constexpr double kOneRounding = 1.2e-3;  // RMS of a value's relative error when it is stored as bf16
// A gradient that cancels to (almost) nothing, as the compressed keys' do where every query sees one block only and the
// window's keys where it holds one, is compared with the noise of what cancelled.
constexpr double kCancelled = 1e-4, kNoiseFloor = 0.1;

std::string coordinate(const Shape& shape, std::int64_t index) {
  std::string s = "]";
  for (int i = shape.rank() - 1; i >= 0; --i) {
    s = (i ? ", " : "[") + std::to_string(index % shape[i]) + s;
    index /= shape[i];
  }
  return s;
}

VerifyRow compare(const std::string& name, In got, In want, double tolerance) {
  NSA_CHECK(got.numel() == want.numel(),
            "verify: {} has {} elements in the file, {} are computed: the file's config does not fit its tensors", name,
            want.numel(), got.numel());
  const std::vector<float> computed = downloaded_floats(got);
  double difference = 0, norm = 0, worst = -1;
  std::int64_t worst_at = 0;
  for (std::int64_t i = 0; i < want.numel(); ++i) {
    const double g = static_cast<double>(computed[static_cast<std::size_t>(i)]), w = static_cast<double>(want.f32()[i]),
                 d = std::isfinite(g) ? std::abs(g - w) : HUGE_VAL;
    difference += d * d;
    norm += w * w;
    if (d > worst) worst = d, worst_at = i;
  }
  VerifyRow row{name, std::sqrt(difference / std::max(norm, 1e-60)), tolerance, "", ""};
  if (norm == 0) row.error = std::sqrt(difference);
  if (want.numel())
    row.worst = fmt::format("{}: got {:.7g}, expected {:.7g}", coordinate(want.shape, worst_at),
                            computed[static_cast<std::size_t>(worst_at)], want.f32()[worst_at]);
  return row;
}

// (N,H,X) -> (B,H,T,X): golden files are head-major
std::vector<float> head_major(In x, std::int64_t B, std::int64_t T, std::int64_t H, std::int64_t X) {
  const std::vector<float> values = downloaded_floats(x);
  const float* in = values.data();
  std::vector<float> out(values.size());
  for (std::int64_t b = 0; b < B; ++b)
    for (std::int64_t t = 0; t < T; ++t)
      for (std::int64_t h = 0; h < H; ++h)
        std::copy_n(in + ((b * T + t) * H + h) * X, X, out.data() + ((b * H + h) * T + t) * X);
  return out;
}

Tensor view_of(std::vector<float>& values, const Shape& shape) { return {values.data(), DType::f32, shape}; }

// The numbers of a stored f32 tensor, or what bf16 makes of them.
std::vector<float> numbers(In stored, bool rounded) {
  std::vector<float> v(stored.f32(), stored.f32() + stored.numel());
  if (rounded)
    for (float& x : v) x = static_cast<float>(bf16(x));
  return v;
}

// Weights from the file; gradients and moments 0.
void load(Device& dev, bool rounded, const SafetensorsReader& file, const std::string& prefix, Params& params) {
  for (Param& p : params.list()) {
    const Tensor& stored = file.at(prefix + p.name);
    NSA_CHECK(stored.shape == p.shape, "{}: {}{} has shape {}, the config asks for {}", file.path(), prefix, p.name,
              stored.shape.str(), p.shape.str());
    upload(p.master, numbers(stored, rounded).data());
  }
  params.refresh_copies(dev);
  for (const Tensor& slab : {params.slabs().grad, params.slabs().m, params.slabs().v}) op::fill(dev, slab, 0.0f);
}

// A tensor of the file on the device, in the type that is computed in.
Tensor uploaded(Device& dev, In stored, DType type, bool rounded) {
  const Tensor floats = dev.work.take(DType::f32, stored.shape, Purpose::activations);
  const Tensor t = type == DType::f32 ? floats : dev.work.take(type, stored.shape, Purpose::activations);
  if (dev.planning()) return t;
  upload(floats, numbers(stored, rounded).data());
  if (type != DType::f32) op::copy(dev, t, floats);
  return t;
}

double rms(In x) {
  double sum = 0;
  for (std::int64_t i = 0; i < x.numel(); ++i) sum += static_cast<double>(x.f32()[i]) * static_cast<double>(x.f32()[i]);
  return std::sqrt(sum / static_cast<double>(std::max<std::int64_t>(x.numel(), 1)));
}

// Of the gradients in the file: the largest RMS, and which of them cancel.
struct GradientScale {
  const SafetensorsReader& file;
  std::string prefix;
  double largest = 0;

  GradientScale(const SafetensorsReader& f, std::string p, const Params& params) : file(f), prefix(std::move(p)) {
    for (const Param& q : params.list()) largest = std::max(largest, rms(file.at(prefix + q.name)));
  }
  bool cancels(const std::string& name) const { return rms(file.at(prefix + name)) < kCancelled * largest; }
};

void compare_gradients(VerifyReport& report, const GradientScale& scale, const Params& params) {
  for (const Param& p : params.list()) {
    const Tensor& want = scale.file.at(scale.prefix + p.name);
    VerifyRow row = compare(scale.prefix + p.name, p.grad, want, kTolerance);
    if (scale.cancels(p.name)) {
      const double size = rms(want), n = static_cast<double>(std::max<std::int64_t>(want.numel(), 1));
      const double divided_by = size > 0 ? std::max(size * std::sqrt(n), 1e-30) : 1;  // in compare()
      row.error *= divided_by / std::sqrt(n) / (kNoiseFloor * scale.largest);
      row.note = fmt::format("cancels to {:.0e} of the largest gradient: compared with that one's noise",
                             size / scale.largest);
    }
    report.rows.push_back(row);
  }
}

// --- one attention layer -------------------------------------------------------------------------

struct LayerRun {
  const SafetensorsReader& file;
  ModelConfig config;
  BatchShape batch;
  bool rounded;  // weights and inputs, to bf16
  VerifyReport report;

  void compare_branches(const NsaAttention& layer, const NsaAttention::Saved& s) {
    const std::int64_t B = batch.B, T = batch.T, H = layer.config.num_heads, Dv = layer.config.Dv();
    const auto row = [&](const char* name, const Tensor& got, std::int64_t X) {
      std::vector<float> values = head_major(got, B, T, H, X);
      report.rows.push_back(compare(name, view_of(values, {B, H, T, X}), file.at(name), kTolerance));
    };
    row("o_cmp", s.o_cmp, Dv);
    row("o_slc", s.o_slc, Dv);
    row("o_win", s.o_win, Dv);
    row("gates", s.gates, 3);
  }

  // Full attention: fill. NSA: the selection is compared by itself; what follows uses the file's indices, so that a tie
  // in one place is not an error everywhere.
  void fill(Device& dev, const FullAttention& layer, const FullAttention::Saved& s, In x, In rope) {
    layer.fill(dev, s, x, rope);
  }
  void fill(Device& dev, const NsaAttention& layer, const NsaAttention::Saved& s, In x, In rope) {
    layer.fill_selected(dev, s, x, rope);
    if (dev.planning()) return layer.fill_rest(dev, s);
    const SelectionResult result = compare_selection(s, file.at("selected"), layer.shape);
    report.rows.push_back({"selected", result.wrong, 0, result.worst, result.note});
    upload(s.selected, file.at("selected").data);
    layer.fill_rest(dev, s);
    compare_branches(layer, s);
  }

  template <class Layer>
  void run(Device& dev, Params& params, const Layer& layer) {
    const Tensor& x_bt = file.at("x");
    const Tensor x = uploaded(dev, x_bt.view({batch.N(), config.hidden_size}), batch.dtype, rounded),
                 dy = uploaded(dev, file.at("dy").view(x.shape), batch.dtype, rounded);
    const Tensor rope = dev.params.take(DType::f32, {batch.T, config.attention.head_dim / 2, 2}, Purpose::weights);
    op::rope_table(dev, rope, config.rope_theta);
    const Tensor y = dev.work.take(batch.dtype, x.shape, Purpose::activations),
                 dx = dev.work.take(batch.dtype, x.shape, Purpose::activations);
    const typename Layer::Saved s = layer.take(dev, batch);
    fill(dev, layer, s, x, rope);
    layer.output(dev, y, s);
    layer.backward(dev, dx, dy, x, s, rope);
    if (dev.planning()) return;
    report.rows.push_back(compare("y", y, file.at("y").view(x.shape), kTolerance));
    report.rows.push_back(compare("dx", dx, file.at("dx").view(x.shape), kTolerance));
    compare_gradients(report, GradientScale(file, "grad.", params), params);
  }

  void pass(Device& dev) {
    Params params;
    if (config.attention.type == AttentionType::nsa) {
      const NsaAttention layer = NsaAttention::declare(params, "", config);
      params.allocate(dev, Params::With::training, batch.dtype);
      if (!dev.planning()) load(dev, rounded, file, "param.", params);
      run(dev, params, layer);
    } else {
      const FullAttention layer = FullAttention::declare(params, "", config);
      params.allocate(dev, Params::With::training, batch.dtype);
      if (!dev.planning()) load(dev, rounded, file, "param.", params);
      run(dev, params, layer);
    }
  }
};

// A planning pass, the reservation it asks for, then `pass` for real.
template <class F>
void planned(const VerifyOptions& options, F&& pass) {
  Device plan = make_device(options.device, options.threads), dev = make_device(options.device, options.threads);
  pass(plan);
  dev.reserve(plan.params.peak(), plan.work.peak());
  pass(dev);
}

VerifyReport verify_layer(const SafetensorsReader& file, const GoldenConfig& golden, const VerifyOptions& options,
                          bool rounded) {
  const Tensor& x = file.at("x");
  NSA_CHECK(x.shape.rank() == 3 && x.dim(2) == golden.model.hidden_size, "{}: x has shape {}, expected (B, T, {})",
            file.path(), x.shape.str(), golden.model.hidden_size);
  LayerRun run{file, golden.model, {x.dim(0), x.dim(1), options.type}, rounded, {"attention_layer", {}}};
  planned(options, [&](Device& dev) { run.pass(dev); });
  return run.report;
}

// --- a model over a few optimizer steps ----------------------------------------------------------

struct ModelRun {
  const SafetensorsReader& file;
  const GoldenConfig& golden;
  DType type;
  bool rounded;  // the weights, to bf16
  VerifyReport report;

  void compare_first_step(Device& dev, const Gpt& gpt, In tokens, const Tensor& logits) {
    const LookAtBlock look = [&](std::int64_t layer, const Block::Saved& s) {
      const std::string name = "selected." + std::to_string(layer);
      if (!s.nsa() || !file.has(name) || dev.planning()) return;
      const SelectionResult result = compare_selection(*s.nsa(), file.at(name), nsa_shape(golden.model.attention));
      report.rows.push_back({name, result.wrong, 0, result.worst, result.note});
    };
    gpt.logits(dev, logits, tokens, look);
    if (!dev.planning()) report.rows.push_back(compare("logits", logits, file.at("logits"), kTolerance));
  }

  void pass(Device& dev) {
    const Tensor& all = file.at("tokens");  // (steps, B, T+1)
    const std::int64_t steps = all.dim(0), B = all.dim(1), T = all.dim(2) - 1, N = B * T;
    Gpt gpt(dev, golden.model, T, Params::With::training, type);
    const Tensor tokens = dev.params.take(DType::i32, {B, T}, Purpose::activations),
                 targets = dev.params.take(DType::i32, {B, T}, Purpose::activations);
    const Tensor losses = dev.work.take(DType::f32, {N}, Purpose::activations);
    const Tensor logits = dev.work.take(DType::f32, {N, golden.model.vocab_size}, Purpose::logits),
                 sums = dev.work.take(DType::f32, {2}, Purpose::scratch);
    if (!dev.planning()) load(dev, rounded, file, "param0.", gpt.params());
    std::vector<float> loss_of_step, norm_of_step;
    for (std::int64_t step = 0; step < (dev.planning() ? 1 : steps); ++step) {
      if (!dev.planning()) upload_split(all.i32() + step * B * (T + 1), tokens, targets);
      if (step == 0) compare_first_step(dev, gpt, tokens, logits);
      op::fill(dev, gpt.params().slabs().grad, 0.0f);
      gpt.train(dev, losses, tokens, targets, 1.0f / static_cast<float>(N), Recompute::none);
      op::sum(dev, sums.rows(0, 1), losses, Write::overwrite);
      op::sum_squares(dev, sums.rows(1, 2), gpt.params().slabs().grad, Write::overwrite);
      if (dev.planning()) return;
      const std::vector<float> read = downloaded<float>(sums);
      const double norm = std::sqrt(static_cast<double>(read[1]));
      if (step == 0) compare_gradients(report, GradientScale(file, "grad0.", gpt.params()), gpt.params());
      adamw_step(dev, gpt.params(), golden.optimizer, golden.optimizer.lr, step + 1,
                 clip_factor(norm, golden.grad_clip));
      loss_of_step.push_back(read[0] / static_cast<float>(N));
      norm_of_step.push_back(static_cast<float>(norm));
    }
    report.rows.push_back(compare("losses", view_of(loss_of_step, {steps}), file.at("losses"), kTolerance));
    report.rows.push_back(compare("grad_norms", view_of(norm_of_step, {steps}), file.at("grad_norms"), kTolerance));
    compare_weights(gpt.params(), steps);
  }
  // Weights after the steps. Where the gradient cancels AdamW divides noise by its own size: up to lr a step, in any
  // direction.
  void compare_weights(const Params& params, std::int64_t steps) {
    const std::string updated = "param" + std::to_string(steps) + ".";
    const GradientScale scale(file, "grad0.", params);
    for (const Param& p : params.list()) {
      const Tensor& want = file.at(updated + p.name);
      VerifyRow row = compare(updated + p.name, p.master, want, kUpdatedTolerance);
      if (scale.cancels(p.name) && rms(want) > 0) {
        row.tolerance += static_cast<double>(steps) * golden.optimizer.lr / rms(want);
        row.note = fmt::format("its gradient cancels: AdamW may move it by lr in each of {} steps", steps);
      }
      report.rows.push_back(row);
    }
  }
  // Windows of T+1 tokens (B,T+1) into inputs and targets (B,T).
  static void upload_split(const std::int32_t* window, Out tokens, Out targets) {
    const std::int64_t B = tokens.dim(0), T = tokens.dim(1);
    std::vector<std::int32_t> inputs, next;
    for (std::int64_t b = 0; b < B; ++b, window += T + 1) {
      inputs.insert(inputs.end(), window, window + T);
      next.insert(next.end(), window + 1, window + T + 1);
    }
    upload(tokens, inputs.data());
    upload(targets, next.data());
  }
};

VerifyReport verify_model(const SafetensorsReader& file, const GoldenConfig& golden, const VerifyOptions& options,
                          bool rounded) {
  ModelRun run{file, golden, options.type, rounded, {"model", {}}};
  planned(options, [&](Device& dev) { run.pass(dev); });
  return run.report;
}

// Tolerances of a bf16 report, from the same file run in float32 on rounded numbers.
void allow_bf16(VerifyReport& report, const VerifyReport& rounded) {
  const auto error_of = [&](const std::string& name) {
    const auto row =
        std::find_if(rounded.rows.begin(), rounded.rows.end(), [&](const VerifyRow& r) { return r.name == name; });
    return row == rounded.rows.end() ? 0.0 : row->error;
  };
  for (VerifyRow& row : report.rows) {
    const double error = std::max(kOneRounding, error_of(row.name));
    row.tolerance = std::max(row.tolerance, kOverRounded * error);
    if (row.name.rfind("param", 0) != 0) continue;
    // a weight that began at 0 is the sum of its updates, and carries as much more noise than its gradient as in
    // float32
    const double of_gradient = error_of("grad0" + row.name.substr(row.name.find('.')));
    row.tolerance = std::max(row.tolerance, kUpdatedTolerance / kTolerance * of_gradient);
  }
}

}  // namespace

bool VerifyReport::ok() const {
  return !rows.empty() && std::all_of(rows.begin(), rows.end(), [](const VerifyRow& r) { return r.ok(); });
}

VerifyReport verify(const std::string& path, const VerifyOptions& options) {
  const SafetensorsReader file(path);
  const GoldenConfig golden = read_golden_config(file);
  const bool is_layer = golden.kind == "attention_layer";
  NSA_CHECK(is_layer || golden.kind == "model",
            "{}: kind \"{}\" in the header is unknown; expected \"attention_layer\" or \"model\"", path, golden.kind);
  const auto run = is_layer ? verify_layer : verify_model;
  VerifyReport report = run(file, golden, options, false);
  if (options.type == DType::f32) return report;
  VerifyOptions in_f32 = options;
  in_f32.type = DType::f32;
  const VerifyReport rounded = run(file, golden, in_f32, true);
  allow_bf16(report, rounded);
  return report;
}

}  // namespace nsa
