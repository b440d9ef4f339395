// From raw records to curves: thinning that keeps every spike, smoothing, grouping of seeds, means over seeds and
// differences of groups.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "report/read.h"
#include "report/statistics.h"

namespace nsa::report {

/// Neighbouring steps as one point. A run of up to kMaxBuckets steps has one bucket per step.
struct Bucket {
  double step, tokens, seconds;     ///< of its last step
  double loss, loss_min, loss_max;  ///< mean, least and greatest of the finite losses; NaN when there are none
  double norm, norm_min, norm_max;  ///< gradient norm, likewise
  double lr;
  std::int64_t skipped;
};
inline constexpr std::size_t kMaxBuckets = 3000;

enum class State {
  unknown,  ///< nobody says how long it was to be
  finished,
  running,
  stopped,   ///< before its planned end
  diverged,  ///< it gave up: no finite loss any more
};

struct History {
  std::string name, group, seed, path;
  State state = State::unknown;
  Provenance info;
  std::vector<Bucket> buckets;
  std::vector<double> smooth;       ///< EMA of the loss at each bucket; NaN where the run had diverged
  std::vector<double> smooth_norm;  ///< EMA of the gradient norm
  std::vector<ValPoint> vals;
  std::vector<GateRecord> gates;
  double last_step = 0, last_tokens = kMissing, last_seconds = kMissing;
  double diverged_at = kMissing;  ///< first step of the end without a finite loss
  double median_ms = kMissing, median_tokens_per_s = kMissing;
  std::int64_t steps = 0, skipped = 0, non_finite = 0, broken_lines = 0;

  /// It is as long as it was to be, or nobody says how long that is.
  bool whole() const { return state == State::finished || state == State::unknown; }
};

/// What to read. Empty group and seed: taken from the run's config, else from its name ("nsa-seed2" is seed 2 of group
/// "nsa").
struct Source {
  std::string path, group, seed;
};

/// Reads and thins all of them, in parallel. `now` (seconds since 1970) tells running from stopped. Throws on the first
/// that cannot be read.
std::vector<History> read_runs(const std::vector<Source>& sources, double now, int threads);
/// Equal numbers of steps per bucket, at most `limit` buckets.
std::vector<Bucket> thin(const std::vector<StepPoint>& steps, std::size_t limit);
/// A two-hundredth of the longest run, at least half a step.
double default_half_life(const std::vector<History>& runs);
/// The losses must already be those of the measure (measure.h).
void smooth_runs(std::vector<History>& runs, double half_life);

/// Runs that differ in nothing but seeds and log names, in order of first appearance.
struct Group {
  std::string name;
  std::vector<const History*> runs;
  /// Those whose losses count: not the diverged ones, and where every group has a whole run, only whole ones, so that
  /// no step on the way is taken for the end. Empty when all diverged.
  std::vector<const History*> compared;

  /// The compared ones, or all when there are none.
  const std::vector<const History*>& shown() const { return compared.empty() ? runs : compared; }
  std::size_t diverged() const;
};
/// Fields of the config that do not make two runs different experiments: seeds, names of logs, checkpoints, samples,
/// threads.
bool is_bookkeeping(const std::string& config_path);
std::vector<Group> group_runs(const std::vector<History>& runs);
/// Name without "-seed3", "_s3", ".seed=3" at its end; the seed, if any, goes to `seed`.
std::string without_seed(const std::string& name, std::string* seed = nullptr);

enum class XAxis { step, tokens, seconds };
double x_of(const Bucket& bucket, XAxis axis);
double x_of(const ValPoint& val, XAxis axis);
bool has_axis(const History& run, XAxis axis);
/// Smoothed loss (or another curve of the run) at x, linear between buckets; NaN outside the run.
double smooth_at(const History& run, XAxis axis, double x, std::vector<double> History::*curve = &History::smooth);

/// A line with a band around it.
struct BandCurve {
  std::vector<double> x, y, low, high;
};
/// Mean of the smoothed loss over the shown runs, as far as all of them go; low..high is their range.
BandCurve mean_curve(const Group& group, XAxis axis, int points,
                     std::vector<double> History::*curve = &History::smooth);
/// Mean over seeds present in both of smooth(b) - smooth(a) against steps; low..high is the pointwise 95 % t interval
/// (NaN with one pair).
BandCurve difference_curve(const Group& a, const Group& b, int points);
/// Compared runs of the same seed, one from each group.
std::vector<std::pair<const History*, const History*>> pairs_by_seed(const Group& a, const Group& b);

}  // namespace nsa::report
