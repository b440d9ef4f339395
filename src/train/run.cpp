#include "train/run.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <filesystem>
#include <new>
#include <optional>
#include <set>

#include "core/file.h"
#include "core/parallel.h"
#include "core/peak.h"
#include "core/signals.h"
#include "model/flops.h"
#include "train/inputs.h"
#include "train/log.h"
#include "train/look.h"
#include "train/metrics.h"
#include "train/plan.h"
#include "train/resume.h"
#include "train/restart.h"
#include "train/run_lock.h"
#include "train/silence.h"
#include "train/step.h"

namespace nsa {

namespace fs = std::filesystem;

namespace {

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

RunLogOptions log_options(const Config& config, const RunOptions& options) {
  return {run_dir(config), config.total_steps(), config.log.every, config.log.tensorboard, options.console};
}

DataRow data_row(const char* split, const data::TokenData& data) {
  return {split,
          static_cast<std::int64_t>(data.shards().size()),
          data.tokens(),
          data.sequences(),
          data.skipped_tokens(),
          data.bytes_per_token(),
          data.masked() ? std::optional(data.counted()) : std::nullopt};
}

// One launch of a run. Members are constructed in the order in which a launch proceeds; each throws its own sentence.
class Run {
 public:
  Run(const Config& config, const RunOptions& options);
  Exit go();

 private:
  Device& reserved();
  void restore();
  void keep_tokenizer();
  void say_start();
  void turn();
  void one_step();
  /// What a save came to. `said` is true of the disk: where the state is, or why it is not there and what is instead.
  struct SaveResult {
    bool saved;
    std::string said;
  };
  SaveResult save();
  SaveResult save_at_end();
  bool diverged() const { return state_.skipped_in_row >= config_.train.max_skipped; }
  [[noreturn]] void end_with(const std::exception& error);
  void warn_once(const std::string& sentence) {
    if (warned_.insert(sentence).second) log_.warn(sentence);
  }
  bool validation_due() const { return inputs_.val && config_.eval.every && (at(config_.eval.every) || finished()); }
  bool sample_due() const { return inputs_.tokenizer && options_.sample && at(config_.eval.sample_every); }
  void validate_now();
  void sample_now();
  void catch_up();
  bool at(std::int64_t every) const { return every > 0 && state_.step % every == 0; }
  bool stop_requested() const {
    return signals_.requested() || (options_.stop_after_step > 0 && state_.step >= options_.stop_after_step);
  }
  bool finished() const { return state_.step >= config_.total_steps(); }

  std::chrono::steady_clock::time_point started_ = std::chrono::steady_clock::now();
  Config config_;
  RunOptions options_;
  Inputs inputs_;  // before the folder: a mistake in the paths leaves nothing behind
  std::string dir_;
  RunLock lock_;
  StopSignals signals_;
  RunLog log_;
  Device dev_;
  MemoryPlan plan_;
  Gpt gpt_;
  BatchBuffers batch_;
  data::Loader loader_;
  TrainState state_;
  OutlierWindow losses_, norms_;
  Silence silence_;
  std::int64_t resumed_from_ = 0, saved_step_ = -1, failed_step_ = -1;
  std::set<std::string> warned_;
};

std::string prepared_dir(const Config& config, const RunOptions& options) {
  const std::string dir = run_dir(config);
  if (options.fresh && (fs::exists(dir + "/metrics.jsonl") || fs::exists(dir + "/checkpoints"))) {
    fail_usage(
        "--fresh: {} already holds a run; give the new one a name of its own (log.name=NAME) or remove that folder "
        "yourself",
        dir);
  }
  make_folders(dir);
  return dir;
}

Run::Run(const Config& config, const RunOptions& options)
    : config_(config),
      options_(options),
      inputs_(config),
      dir_(prepared_dir(config, options)),
      lock_(dir_),
      log_(log_options(config, options)),
      dev_(make_device(config)),
      plan_(plan_memory(config)),
      gpt_(reserved(), config.model, config.data.sequence_length, Params::With::training, compute_type(config)),
      batch_(dev_, config),
      loader_(inputs_.train, static_cast<std::uint64_t>(config.data.seed), config.train.micro_batch),
      losses_(config.train.outlier_window),
      norms_(config.train.outlier_window),
      silence_(config) {
  restore();
}

// Memory for the whole run, once; nothing grows after this.
Device& Run::reserved() {
  dev_.reserve(plan_.params.bytes, plan_.work.bytes);
  return dev_;
}

void Run::restore() {
  if (!lock_.warning().empty()) log_.warn(lock_.warning());
  std::vector<std::string> warnings;
  const CheckpointFile newest = checkpoint_to_go_on_from(dir_, dev_.threads, warnings);
  for (const std::string& w : warnings) log_.warn(w);
  for (const std::string& w : inputs_.warnings) log_.warn(w);
  const DataIdentity data = inputs_.identity();
  if (newest.path.empty()) {
    gpt_.params().initialise(dev_, static_cast<std::uint64_t>(config_.train.seed), config_.model.init_std,
                             config_.model.num_layers);
  } else {
    state_ = load_state(newest);
    for (const std::string& w : check_resume(config_, state_, data, newest.path, options_)) log_.warn(w);
    load_tensors(model_file(newest), gpt_.params().weights(), dev_.threads);
    load_tensors(optimizer_file(newest), gpt_.params().moments(), dev_.threads);
    gpt_.params().refresh_copies(dev_);
    losses_ = OutlierWindow(config_.train.outlier_window, state_.recent_losses);
    norms_ = OutlierWindow(config_.train.outlier_window, state_.recent_norms);
    resumed_from_ = saved_step_ = state_.step;
  }
  state_.config = to_json(config_);
  state_.data_fingerprint = data.fingerprint;
  state_.tokenizer_hash = data.tokenizer_hash;
  keep_tokenizer();
}

// `nsa generate` reads the copy: the original may move, or be trained anew. A run does not end for want of it.
void Run::keep_tokenizer() {
  if (!inputs_.tokenizer) return;
  try {
    nsa::keep_tokenizer(dir_, *inputs_.tokenizer);
  } catch (const Error& error) {
    log_.warn(fmt::format("no copy of the tokenizer in the run's folder: {}", error.what()));
  }
}

void Run::say_start() {
  StartTables tables;
  tables.config = config_rows(config_, inputs_.padding_rows(config_));
  tables.data = {data_row("train", inputs_.train)};
  if (inputs_.val) tables.data.push_back(data_row("val", *inputs_.val));
  tables.parameters = parameter_rows(gpt_.params());
  tables.memory = memory_rows(plan_);
  log_.tables(tables);
  if (resumed_from_) log_.info(fmt::format("resumed {} at step {} of {}", dir_, resumed_from_, config_.total_steps()));
  const double loaded_ms = seconds_since(started_) * 1e3;

  RunRecord record;
  record.command = options_.command;
  record.config = state_.config;
  record.parameters = gpt_.params().count();
  record.flops_per_token = flops_per_token(config_.model, config_.data.sequence_length).training();
  record.peak_gflops = measure_fma_gflops(dev_.threads);
  record.memory_bytes = static_cast<std::int64_t>(plan_.bytes());
  record.tokenizer_hash = inputs_.tokenizer ? inputs_.tokenizer->hash() : inputs_.train.tokenizer_hash();
  if (!inputs_.train.masked()) record.bytes_per_token = inputs_.train.bytes_per_token();
  record.resumed_from = resumed_from_;
  log_.start(record);
  log_.info(fmt::format("ready after {:.0f} ms ({} {:.0f} ms)", seconds_since(started_) * 1e3,
                        resumed_from_ ? "loading" : "initialising", loaded_ms));
}

void Run::one_step() {
  const bool look = batch_.looks && (state_.step + 1) % kLookEvery == 0;
  const auto start = std::chrono::steady_clock::now();
  const TrainState before = state_;
  StepResult r;
  try {
    r = train_step(dev_, gpt_, loader_, config_, batch_, losses_, norms_, state_,
                   look ? look_at_branches(dev_, batch_.looks, config_) : LookAtBlock{});
  } catch (...) {  // the data, for example: the weights are still those of the last finished step
    state_ = before;
    losses_ = OutlierWindow(config_.train.outlier_window, state_.recent_losses);
    norms_ = OutlierWindow(config_.train.outlier_window, state_.recent_norms);
    throw;
  }
  const double seconds = seconds_since(start);
  state_.seconds += seconds;

  StepRecord record;
  record.step = state_.step;
  record.tokens = state_.tokens;
  record.step_tokens = config_.train.batch_tokens;
  record.loss = r.loss;
  record.grad_norm = r.grad_norm;
  record.lr = r.lr;
  record.ms = seconds * 1e3;
  record.seconds = state_.seconds;
  record.z_loss = r.z_loss;
  record.z_norm = r.z_norm;
  record.skipped = r.skipped;
  log_.step(record);
  if (options_.on_step) options_.on_step(record.step, record.loss);
  if (!look) return;
  const std::vector<LayerLook> layers = looked(batch_.looks, config_);
  log_.gates(state_.step, layers);
  for (const std::string& sentence : silence_.observe(state_.step, layers)) log_.warn(sentence);
}

Run::SaveResult Run::save() {
  const std::string path = fmt::format("{}/checkpoints/step_{:08}", dir_, state_.step);
  if (saved_step_ == state_.step) return {true, fmt::format("the state of step {} is saved in {}", state_.step, path)};
  const auto start = std::chrono::steady_clock::now();
  log_.sync();
  try {
    for (const std::string& sentence :
         save_checkpoint(dir_, state_, gpt_.params().weights(), gpt_.params().moments(), config_.checkpoint.keep))
      warn_once(sentence);
  } catch (const std::exception& error) {  // a full disk costs this checkpoint, not the run
    const std::string said =
        fmt::format("the state of step {} is NOT saved: {}; {}", state_.step, error.what(), newest_on_disk(dir_));
    log_.warn(said);
    failed_step_ = state_.step;
    return {false, said};
  }
  saved_step_ = state_.step;
  log_.checkpoint(state_.step, path, seconds_since(start) * 1e3);
  return save();
}

// The last chance of this launch: a save that failed is tried once more.
Run::SaveResult Run::save_at_end() {
  const bool tried = failed_step_ == state_.step;
  const SaveResult result = save();
  return result.saved || tried ? result : save();
}

void Run::validate_now() {
  const auto start = std::chrono::steady_clock::now();
  ValRecord record;
  record.step = state_.step;
  record.tokens = state_.tokens;
  const Validation v = validate(dev_, gpt_, *inputs_.val, config_.eval.batches, batch_, inputs_.token_bytes);
  record.loss = v.loss;
  record.bits_per_byte = bits_per_byte(v);
  record.accuracy = v.accuracy;
  if (v.counted < v.tokens) record.counted = v.counted;
  for (std::size_t i = 0; i < v.shards.size(); ++i) {
    const Validation::Part& part = v.shards[i];
    if (part.counted)
      record.shards.push_back({inputs_.val->shards()[i].path(), part.counted, part.loss, part.accuracy});
  }
  record.seconds = seconds_since(start);
  log_.val(record);
}

void Run::sample_now() {
  log_.sample(state_.step, options_.sample(dev_, gpt_, *inputs_.tokenizer, config_, state_.step));
}

// A process killed between a checkpoint and the validation that follows it leaves a step without its record.
void Run::catch_up() {
  const std::string metrics = read_file(dir_ + "/metrics.jsonl");
  for (const auto& [step, layers] : looks_in(metrics))
    silence_.observe(step, layers);  // what was said is not said again
  if (validation_due() && !has_record(metrics, "val", state_.step)) validate_now();
  if (sample_due() && !has_record(metrics, "sample", state_.step)) sample_now();
}

// One step and what is due after it; a checkpoint comes before anything that could fail.
void Run::turn() {
  one_step();
  if (diverged()) return;
  const bool asked = signals_.take_save_request();
  if (asked || at(config_.checkpoint.every) || finished() || validation_due() || sample_due()) save();
  if (validation_due()) validate_now();
  if (sample_due()) sample_now();
}

// What was trained until the error is not lost with it.
void Run::end_with(const std::exception& error) {
  const auto* known = dynamic_cast<const Error*>(&error);
  const std::string what = dynamic_cast<const std::bad_alloc*>(&error) ? "out of memory" : error.what();
  const std::string said = state_.step == 0 ? "no step was finished" : save_at_end().said;
  throw Error(fmt::format("{} ({})", what, said), known ? known->code() : Exit::error);
}

Exit Run::go() {
  say_start();
  if (resumed_from_) catch_up();
  while (!finished() && !stop_requested()) {
    try {
      turn();
    } catch (const std::exception& error) {
      end_with(error);
    }
    if (diverged()) {
      throw Error(fmt::format("{} steps in a row were skipped (non-finite loss or gradient norm, an outlier above "
                              "train.skip_outlier_z, or no target that counts); stopped at step {}, {}: a lower "
                              "train.optimizer.lr or a longer warm-up is the usual cure",
                              state_.skipped_in_row, state_.step, save_at_end().said),
                  Exit::non_finite);
    }
  }
  log_.info(fmt::format("memory: {} planned, {} used", plan_.bytes(), dev_.params.peak() + dev_.work.peak()));
  const SaveResult end = save_at_end();
  const std::string why =
      finished() ? fmt::format("{} steps done", state_.step)
      : signals_.requested()
          ? fmt::format("{}: stopped after step {} of {}", signals_.name(), state_.step, config_.total_steps())
          : fmt::format("stopped as asked after step {} of {}", state_.step, config_.total_steps());
  NSA_CHECK(end.saved, "{}, but {}; mend that and start the same command again", why, end.said);
  log_.info(finished() ? fmt::format("{}; results in {}", why, dir_)
                       : fmt::format("{}, saved; the same command goes on from there", why));
  return Exit::ok;
}

}  // namespace

std::string run_dir(const Config& config) { return config.log.dir + "/" + config.log.name; }

bool run_finished(const Config& config) {
  std::vector<std::string> ignored;
  const std::string dir = run_dir(config), metrics = dir + "/metrics.jsonl";
  if (!fs::exists(metrics) || find_checkpoint(dir, ignored, 1, Depth::sizes).step < config.total_steps()) return false;
  return config.data.val.empty() || !config.eval.every || has_record(read_file(metrics), "val", config.total_steps());
}

bool run_diverged(const Config& config) {
  std::vector<std::string> ignored;
  const CheckpointFile newest = find_checkpoint(run_dir(config), ignored, 1, Depth::sizes);
  return !newest.path.empty() && load_state(newest).skipped_in_row >= config.train.max_skipped;
}

Exit train(const Config& config, const RunOptions& options) { return Run(config, options).go(); }

}  // namespace nsa
