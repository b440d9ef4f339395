// A run, whole: model, data, train, eval, checkpoint, log, device, parallel. configs/*.json are complete; there is no
// inheritance.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/fields.h"
#include "data/config.h"
#include "model/config.h"
#include "model/gpt.h"

namespace nsa {

enum class ScheduleType : int { cosine, linear, wsd, constant };
enum class Precision : int { f32, bf16 };
enum class DeviceType : int { auto_, cpu, cuda, fake };
inline const Choices kScheduleTypes{"cosine", "linear", "wsd", "constant"};
inline const Choices kPrecisions{"f32", "bf16"};
inline const Choices kRecomputes{"none", "block"};
inline const Choices kDeviceTypes{"auto", "cpu", "cuda", "fake"};

struct ScheduleConfig {
  ScheduleType type = ScheduleType::cosine;
  std::int64_t warmup_steps = 0;
  double min_lr_ratio = 0.1;
  double decay_fraction = 0.2;

  void fields(FieldList& v) {
    v.choice("type", type, kScheduleTypes,
             "learning rate after warm-up: half a cosine, a line, warm-up/stable/decay, or constant");
    v.field("warmup_steps", warmup_steps, "steps of linear warm-up from 0", Range{0, 1e12});
    v.field("min_lr_ratio", min_lr_ratio, "last learning rate as a share of lr (not for \"constant\")", Range{0, 1});
    v.field("decay_fraction", decay_fraction, "\"wsd\": share of all steps that decay linearly at the end",
            Range{0, 1});
  }
};

struct OptimizerConfig {
  double lr = 3e-4;
  double beta1 = 0.9, beta2 = 0.95, eps = 1e-8, weight_decay = 0.1;

  void fields(FieldList& v) {
    v.field("lr", lr, "highest learning rate", Range{0, 1e3});
    v.field("beta1", beta1, "AdamW: decay of the first moment", Range{0, 1});
    v.field("beta2", beta2, "AdamW: decay of the second moment", Range{0, 1});
    v.field("eps", eps, "AdamW: epsilon", Range{0, 1});
    v.field("weight_decay", weight_decay, "AdamW: decoupled weight decay, on tensors of rank >= 2", Range{0, 1e3});
  }
};

struct TrainConfig {
  std::int64_t steps = 0, tokens = 0;
  std::int64_t batch_tokens = 0, micro_batch = 1;
  Precision precision = Precision::f32;
  Recompute recompute = Recompute::none;
  ScheduleConfig schedule;
  OptimizerConfig optimizer;
  double grad_clip = 1.0;
  std::int64_t seed = 1;
  std::int64_t max_skipped = 20;
  std::int64_t outlier_window = 128;
  double skip_outlier_z = 0;

  void fields(FieldList& v) {
    v.field("steps", steps, "optimizer steps; give either steps or tokens", Range{0, 1e12});
    v.field("tokens", tokens, "training tokens, rounded up to whole steps; give either steps or tokens",
            Range{0, 1e18});
    v.field("batch_tokens", batch_tokens,
            required("tokens in one optimizer step; a multiple of micro_batch * sequence_length"), Range{1, 1e12});
    v.field("micro_batch", micro_batch,
            "B, sequences computed at once; the rest of batch_tokens is gradient accumulation", Range{1, 1 << 20});
    v.choice("precision", precision, kPrecisions,
             "number format of the computation; bf16: weights and activations, with f32 masters, gradients, moments "
             "and sums");
    v.choice("recompute", recompute, kRecomputes,
             "\"block\": keep only each block's input and recompute the rest in backward; same bits, less memory");
    v.section("schedule", schedule, "learning rate over the run");
    v.section("optimizer", optimizer, "AdamW");
    v.field("grad_clip", grad_clip, "largest global gradient norm; 0: no clipping", Range{0, 1e12});
    v.field("seed", seed, "seed of the initial weights", Range{0, 9007199254740992.0});
    v.field("max_skipped", max_skipped, "skipped steps in a row after which the run stops with exit code 3",
            Range{1, 1e9});
    v.field("outlier_window", outlier_window, "steps over which the z-scores of loss and gradient norm are taken",
            Range{2, 1e6});
    v.field("skip_outlier_z", skip_outlier_z,
            "skip a step whose loss or gradient norm has a z-score above this; 0: never", Range{0, 1e6});
  }
};

struct EvalConfig {
  std::int64_t every = 0, batches = 0;
  std::int64_t sample_every = 0, sample_tokens = 128;
  std::string sample_prompt;
  double sample_temperature = 0.8;

  void fields(FieldList& v) {
    v.field("every", every, "validate every so many steps and at the end; 0: never", Range{0, 1e12});
    v.field("batches", batches, "micro-batches of a validation; 0: all of data.val", Range{0, 1e12});
    v.field("sample_every", sample_every, "print a generated sample every so many steps; 0: never", Range{0, 1e12});
    v.field("sample_tokens", sample_tokens, "tokens of a sample", Range{1, 1e6});
    v.field("sample_prompt", sample_prompt, "what a sample continues; empty: the start of a document");
    v.field("sample_temperature", sample_temperature, "temperature of samples; 0: the likeliest token", Range{0, 100});
  }
};

struct CheckpointConfig {
  std::int64_t every = 0, keep = 2;

  void fields(FieldList& v) {
    v.field("every", every, "save every so many steps; 0: only at the end and when a signal asks", Range{0, 1e12});
    v.field("keep", keep, "checkpoints kept, newest first", Range{2, 1e6});
  }
};

struct LogConfig {
  std::string dir = "runs";
  std::string name;
  std::int64_t every = 1;
  bool tensorboard = true;

  void fields(FieldList& v) {
    v.field("dir", dir, "folder of all runs");
    v.field("name", name, "the run's folder under dir; empty: the config file's name");
    v.field("every", every, "print a line every so many steps (metrics.jsonl has every step)", Range{1, 1e9});
    v.field("tensorboard", tensorboard, "write a TensorBoard event file beside metrics.jsonl");
  }
};

struct Config {
  ModelConfig model;
  DataConfig data;
  TrainConfig train;
  EvalConfig eval;
  CheckpointConfig checkpoint;
  LogConfig log;
  DeviceType device = DeviceType::auto_;
  std::int64_t threads = 0;

  std::int64_t total_steps() const {
    return train.steps ? train.steps : (train.tokens + train.batch_tokens - 1) / train.batch_tokens;
  }
  std::int64_t accumulation() const { return train.batch_tokens / (train.micro_batch * data.sequence_length); }

  void fields(FieldList& v) {
    v.section("model", model, "the network");
    v.section("data", data, "the tokens");
    v.section("train", train, "the optimisation");
    v.section("eval", eval, "validation and samples");
    v.section("checkpoint", checkpoint, "what is saved, when");
    v.section("log", log, "where results go");
    v.choice("device", device, kDeviceTypes,
             "where to compute; auto: a GPU if there is one; fake: the CPU as a device that host code cannot reach "
             "into (tests)");
    v.field("threads", threads, "CPU threads; 0: all cores this process may use. Results do not depend on it",
            Range{0, 4096});
  }
};

/// Throws one sentence naming fields and values when the parts do not fit together (either steps or tokens,
/// batch_tokens a multiple, ...).
void check(const Config& config);

/// Reads a config file (JSON with // comments), applies `section.key=value` overrides in order, expands ~ at the start
/// of paths, checks it. Throws Error(Exit::usage).
Config load_config(const std::string& path, const std::vector<std::string>& overrides = {});
/// The same from text already read; `origin` names it in errors.
Config parse_config(const std::string& text, const std::string& origin, const std::vector<std::string>& overrides = {});
/// A config that an earlier or later version saved with a run, as far as this one understands it; see read_old_json.
/// Not checked as a whole.
struct SavedConfig {
  Config config;
  OldConfig old;
  bool knows(const std::string& path) const;  ///< the field's value is the saved one
};
SavedConfig read_saved_config(const std::string& text, const std::string& origin);
/// The whole config, every field, as indented JSON. parse_config(to_json(c)) == c.
std::string to_json(const Config& config);
/// The reference table of every field, in Markdown, for the README.
std::string config_reference();
/// JSON Schema (2020-12) of a config file.
std::string config_schema();

}  // namespace nsa
