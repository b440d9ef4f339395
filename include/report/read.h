// Reading runs: runs/NAME/metrics.jsonl (docs/metrics.md) and step,loss files of other programs (TSV, CSV, JSONL).
// Reading is tolerant: a last line that is cut, null or NaN, steps written twice, a file that grows while it is read.
// Broken lines in the middle are passed over and counted.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <limits>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace nsa::report {

inline constexpr double kMissing = std::numeric_limits<double>::quiet_NaN();

/// One optimizer step as written; fields not in the file are NaN.
struct StepPoint {
  double step = 0, tokens = kMissing, loss = kMissing, grad_norm = kMissing, lr = kMissing, ms = kMissing,
         seconds = kMissing;
  double tokens_per_s = kMissing, share_of_peak = kMissing, z_loss = kMissing, z_norm = kMissing;
  bool skipped = false;
};
struct ValPoint {
  double step, tokens, seconds;
  double loss;  ///< nats per token
  double bits_per_byte;
  double value;  ///< what is drawn and compared: the loss, unless the runs at hand need bits per byte (measure.h)
  double accuracy = kMissing;
  double counted = kMissing;  ///< targets that count, where masks leave some out
};
/// A look at the branches of NSA; lists by layer, those but the gates empty in files of older versions.
struct GateRecord {
  double step;
  std::vector<std::array<float, 3>> layers;    ///< mean gate [cmp, slc, win]
  std::vector<std::array<float, 1>> entropy;   ///< of the compression attention, in [0, 1]
  std::vector<std::array<float, 2>> coverage;  ///< [of the selected blocks, by chance]
  std::vector<std::array<float, 3>> shares;    ///< of the gated output [cmp, slc, win]
};
struct CheckpointRecord {
  double step, ms;
  std::string path;
};

/// What a run's `run` records say (the last one wins).
struct Provenance {
  std::string version, commit, command, machine, date;
  std::string tokenizer_hash;  ///< "" when not known
  std::vector<std::pair<std::string, std::string>>
      config;  ///< flattened: "model.attention.type" -> "nsa"; lists as JSON text
  double parameters = kMissing, flops_per_token = kMissing, peak_gflops = kMissing, memory_bytes = kMissing;
  double bytes_per_token = kMissing;  ///< of the training text
  int launches = 0;

  /// The config's value at a dotted path, "" when absent.
  std::string config_value(std::string_view path) const;
  /// train.steps, or train.tokens / train.batch_tokens rounded up; 0 when the config does not say.
  double planned_steps() const;
};

/// Everything read from one file.
struct Records {
  Provenance info;
  std::vector<StepPoint> steps;  ///< ascending, no step twice
  std::vector<ValPoint> vals;
  std::vector<GateRecord> gates;
  std::vector<CheckpointRecord> checkpoints;
  std::string last_sample;
  std::int64_t broken_lines = 0, first_broken_line = 0;

  /// The first of the skipped or not finite steps with which the run gave up: train.max_skipped in a row at its end, or
  /// all it was to do. Two without a finite loss when no config says how many. NaN when it did not.
  double diverged_at() const;
};

/// Takes the bytes of a file in pieces cut anywhere, so that a growing file is never read twice.
class MetricsReader {
 public:
  /// delimiter 0: JSON lines; otherwise columns, with or without a line of names.
  explicit MetricsReader(char delimiter = 0) : delimiter_(delimiter) {}
  void feed(std::string_view bytes);
  /// `bytes` is the beginning of a file of `total` bytes: makes room for as many steps as that looks like.
  void expect(std::string_view bytes, double total);
  /// The end of the file: a last line without newline counts when it is complete; sorts records of foreign files. More
  /// may be fed afterwards.
  void finish();
  Records records;

 private:
  enum Column : int {
    step,
    tokens,
    loss,
    grad_norm,
    lr,
    ms,
    seconds,
    tokens_per_s,
    share_of_peak,
    z_loss,
    z_norm,
    skipped,
    val_loss,
    bits_per_byte,
    val_accuracy,
    counted,
    columns,  // so many numbers; the others are texts
    type = columns,
    layers,
    entropy,
    coverage,
    output_share,
    path,
    none
  };
  struct Known {
    std::string key;
    Column column = none;
  };
  static Column column_of(std::string_view key);
  bool line(std::string_view text);
  bool json_line(std::string_view text);
  bool column_line(std::string_view text);
  bool run_line(std::string_view text);
  void store(const std::array<double, columns>& value, std::string_view record_type);
  void store_step(const std::array<double, columns>& value);
  void store_val(const std::array<double, columns>& value, double loss_value);
  void forget_from(double first_step);

  char delimiter_;
  std::string rest_;            // an unfinished line
  std::vector<Known> order_;    // keys in the order of the last line: files repeat them, so a lookup is one comparison
  std::vector<Column> header_;  // columns of a TSV/CSV
  std::vector<std::string_view> cells_;  // of the line at hand
  bool foreign_ = false;
  std::int64_t line_number_ = 0;
};

/// The file of a run: PATH/metrics.jsonl for a folder, PATH itself for a file. Throws naming what is missing.
std::string metrics_path(const std::string& path);
/// The delimiter MetricsReader needs for this file, seen from its first bytes.
char detect_delimiter(std::string_view first_bytes);
/// Reads the whole file. Throws when it cannot be opened or holds no step at all.
Records read_run(const std::string& path);

}  // namespace nsa::report
