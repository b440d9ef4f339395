// What a run leaves to read: runs/NAME/run.log (and the console), metrics.jsonl (docs/metrics.md), a TensorBoard event
// file. A log never stops a run: what cannot be written (disk full) is said once and left out.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace nsa {

// ---- records of metrics.jsonl; the fields are those of docs/metrics.md, in its order

struct RunRecord {
  std::string command;  ///< the command line; version, commit, machine and date are filled in by RunLog
  std::string config;   ///< the resolved config, as JSON text
  std::int64_t parameters = 0;
  double flops_per_token = 0;  ///< also what share_of_peak is computed from
  double peak_gflops = 0;      ///< 0: not measured; share_of_peak is then absent
  std::int64_t memory_bytes = 0;
  std::uint64_t tokenizer_hash = 0;  ///< 0: not known
  double bytes_per_token = 0;        ///< of the training text; 0: not known, or not all tokens count
  std::int64_t resumed_from = 0;     ///< 0: a new run
};

/// Why a step was skipped whose batch has no target that counts; its loss and norm are NaN: no mean of nothing.
inline constexpr const char* kNoTargets = "no targets";

struct StepRecord {
  std::int64_t step = 0;         ///< steps done, from 1
  std::int64_t tokens = 0;       ///< seen so far
  std::int64_t step_tokens = 0;  ///< of this step, for tokens_per_s and share_of_peak (not a field)
  double loss = 0, grad_norm = 0, lr = 0;
  double ms = 0;
  double seconds = 0;
  std::optional<double> z_loss, z_norm;
  std::string skipped;  ///< why the optimizer did not run: "non-finite", "outlier", kNoTargets; "" when it ran
};

struct ValRecord {
  struct Shard {
    std::string path;
    std::int64_t counted = 0;
    double loss = 0, accuracy = 0;
  };
  std::int64_t step = 0, tokens = 0;
  double loss = 0;
  std::optional<double> bits_per_byte;
  double seconds = 0;                        ///< the validation took (console only)
  double accuracy = 0;                       ///< share of the targets that were the likeliest token
  std::optional<std::int64_t> counted = {};  ///< targets that count, where not all do
  std::vector<Shard> shards = {};            ///< of masked data in several shards: those in which some count
};

/// What a look (train/look.h) sees of the branches cmp, slc, win of one NSA layer. NaN: no query could tell.
struct LayerLook {
  std::array<double, 3> gate{};  ///< mean
  std::array<double, 3> rms{};   ///< of gate times output, over tokens, heads and dims
  double entropy = 0;            ///< of the compression attention; 1: spread evenly over the visible blocks
  double covered = 0;            ///< share of the compression attention's mass that the selected blocks hold
  double chance = 0;             ///< what `covered` would be if the free blocks were drawn at random

  /// Each branch's part of the sum of the three rms; 0 when all are 0.
  std::array<double, 3> share() const;
};

// ---- start-up tables

struct DataRow {
  std::string split;  ///< "train", "val"
  std::int64_t shards = 0, tokens = 0, sequences = 0, skipped_tokens = 0;
  double bytes_per_token = 0;                ///< 0: unknown
  std::optional<std::int64_t> counted = {};  ///< tokens that count as targets, where there are masks
};

struct ParameterRow {
  std::string part;  ///< "embedding", "attention", "feed-forward", "norms", "head", ...
  std::int64_t tensors = 0, elements = 0;
};

struct MemoryRow {
  std::string arena, purpose;  ///< "parameters" or "work"; name_of(Purpose)
  std::int64_t bytes = 0;
};

/// What is printed before the first step, and by `nsa plan`.
struct StartTables {
  std::vector<std::pair<std::string, std::string>>
      config;  ///< what matters of the config: {"attention", "nsa, 8 heads on 2"}
  std::vector<DataRow> data;
  std::vector<ParameterRow> parameters;
  std::vector<MemoryRow> memory;
};
/// Aligned text with totals; an empty table is left out.
std::string to_text(const StartTables& tables);

// ---- the log

struct RunLogOptions {
  std::string dir;  ///< runs/NAME; exists
  std::int64_t total_steps = 0;
  std::int64_t every = 1;  ///< console line every so many steps; the first, the last and skipped ones always
  bool tensorboard = true;
  bool console = true;  ///< false: only files (tests)
};

class RunLog {
 public:
  /// Opens run.log only: messages can be written before it is known whether the run resumes. Throws when the folder is
  /// not writable.
  explicit RunLog(RunLogOptions options);
  ~RunLog();

  void info(const std::string& message);
  void warn(const std::string& message);
  /// The tables, to console and run.log.
  void tables(const StartTables& tables);

  /// Moves the records after record.resumed_from from metrics.jsonl (atomically) to metrics.dropped.jsonl, opens it and
  /// the event file, writes the `run` record. Call once, before the functions below.
  void start(const RunRecord& record);
  void step(const StepRecord& record);
  void val(const ValRecord& record);
  /// NSA: a look, layer by layer.
  void gates(std::int64_t step, const std::vector<LayerLook>& layers);
  void checkpoint(std::int64_t step, const std::string& path, double ms);
  void sample(std::int64_t step, const std::string& text);
  /// The records so far are on the disk: before the checkpoint they lead up to.
  void sync();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace nsa
