#include "report/series.h"

#include <sys/stat.h>

#include <algorithm>
#include <cctype>
#include <cmath>

#include "core/check.h"
#include "core/median.h"
#include "core/parallel.h"
#include "report/measure.h"

namespace nsa::report {
namespace {

/// Mean, least and greatest of the finite values.
struct Range3 {
  double mean = kMissing, least = kMissing, greatest = kMissing;
};

Range3 range_of(const StepPoint* first, const StepPoint* last, double StepPoint::*field) {
  Range3 r;
  double sum = 0;
  int n = 0;
  for (; first != last; ++first) {
    const double v = first->*field;
    if (!std::isfinite(v)) continue;
    r.least = n ? std::min(r.least, v) : v;
    r.greatest = n ? std::max(r.greatest, v) : v;
    sum += v;
    ++n;
  }
  if (n) r.mean = sum / n;
  return r;
}

std::string base_name(std::string path) {
  while (path.size() > 1 && path.back() == '/') path.pop_back();
  if (path.ends_with("/metrics.jsonl")) path.resize(path.size() - 14);
  const std::size_t slash = path.find_last_of('/');
  if (slash != std::string::npos) path.erase(0, slash + 1);
  for (const char* extension : {".jsonl", ".tsv", ".csv", ".txt", ".json", ".log"}) {
    if (path.size() > 6 && path.ends_with(extension)) path.resize(path.size() - std::string(extension).size());
  }
  return path;
}

State state_of(const History& run, const std::string& file, double now) {
  if (std::isfinite(run.diverged_at)) return State::diverged;
  const double planned = run.info.planned_steps();
  if (planned <= 0) return State::unknown;
  if (run.last_step >= planned) return State::finished;
  struct stat info {};
  const double age = ::stat(file.c_str(), &info) == 0 ? now - static_cast<double>(info.st_mtime) : 0;
  const double pause =
      std::isfinite(run.median_ms) ? run.median_ms / 1000 * 20 : 0;  // validation or saving may take many steps' time
  return age < std::max(120.0, pause) ? State::running : State::stopped;
}

History make_run(const Source& source, double now) {
  Records raw = read_run(source.path);
  History run;
  run.diverged_at = raw.diverged_at();
  run.path = source.path;
  run.name = base_name(source.path);
  run.group = source.group;
  run.info = std::move(raw.info);
  run.seed = source.seed.empty() ? run.info.config_value("train.seed") : source.seed;
  if (run.seed.empty()) without_seed(run.name, &run.seed);
  run.vals = std::move(raw.vals);
  run.gates = std::move(raw.gates);
  run.broken_lines = raw.broken_lines;
  std::vector<double> ms, speed;
  for (const StepPoint& s : raw.steps) {
    run.skipped += s.skipped;
    run.non_finite += !std::isfinite(s.loss);
    ms.push_back(s.ms);
    speed.push_back(s.tokens_per_s);
    run.last_step = s.step;
    if (std::isfinite(s.tokens)) run.last_tokens = s.tokens;
    if (std::isfinite(s.seconds)) run.last_seconds = s.seconds;
  }
  run.steps = static_cast<std::int64_t>(raw.steps.size());
  run.median_ms = median(std::move(ms));
  run.median_tokens_per_s = median(std::move(speed));
  run.buckets = thin(raw.steps, kMaxBuckets);
  constexpr std::size_t kMaxGates = 300;
  if (run.gates.size() > kMaxGates) {
    for (std::size_t i = 0; i < kMaxGates; ++i)
      std::swap(run.gates[i], run.gates[(i * (run.gates.size() - 1)) / (kMaxGates - 1)]);
    run.gates.resize(kMaxGates);
  }
  run.state = state_of(run, metrics_path(source.path), now);
  return run;
}

/// x of the last bucket that has one.
double last_x(const History& run, XAxis axis) {
  for (std::size_t i = run.buckets.size(); i-- > 0;) {
    if (std::isfinite(x_of(run.buckets[i], axis))) return x_of(run.buckets[i], axis);
  }
  return kMissing;
}

double first_x(const History& run, XAxis axis) {
  for (const Bucket& bucket : run.buckets) {
    if (std::isfinite(x_of(bucket, axis))) return x_of(bucket, axis);
  }
  return kMissing;
}

/// `points` places from the last begin to the first end of these runs; one place when they meet in a point, none when
/// they do not meet.
std::vector<double> common_grid(const std::vector<const History*>& runs, XAxis axis, int points) {
  double begin = -INFINITY, end = INFINITY;
  for (const History* run : runs) {
    begin = std::max(begin, first_x(*run, axis));
    end = std::min(end, last_x(*run, axis));
  }
  if (!(begin <= end) || !std::isfinite(begin) || !std::isfinite(end)) return {};
  if (begin == end) return {begin};
  if (axis == XAxis::step) points = static_cast<int>(std::min<double>(points, end - begin + 1));
  std::vector<double> x(static_cast<std::size_t>(std::max(points, 2)));
  for (std::size_t i = 0; i < x.size(); ++i)
    x[i] = begin + (end - begin) * static_cast<double>(i) / static_cast<double>(x.size() - 1);
  return x;
}

void choose_compared(std::vector<Group>& groups) {
  const auto whole = [](const History* run) { return run->whole(); };
  bool all_whole = true;
  for (Group& group : groups) {
    for (const History* run : group.runs) {
      if (run->state != State::diverged) group.compared.push_back(run);
    }
    all_whole =
        all_whole && (group.compared.empty() || std::any_of(group.compared.begin(), group.compared.end(), whole));
  }
  for (Group& group : groups) {
    if (all_whole) std::erase_if(group.compared, [&](const History* run) { return !whole(run); });
  }
}

}  // namespace

std::vector<History> read_runs(const std::vector<Source>& sources, double now, int threads) {
  std::vector<History> runs(sources.size());
  std::vector<std::string> errors(sources.size());
  parallel_for(threads, static_cast<std::int64_t>(sources.size()), [&](std::int64_t i, int) {
    const auto at = static_cast<std::size_t>(i);
    try {  // an exception may not leave a parallel region
      runs[at] = make_run(sources[at], now);
    } catch (const std::exception& e) {
      errors[at] = e.what();
    }
  });
  for (const std::string& error : errors) NSA_CHECK(error.empty(), "{}", error);
  return runs;
}

std::vector<Bucket> thin(const std::vector<StepPoint>& steps, std::size_t limit) {
  std::vector<Bucket> out;
  if (steps.empty()) return out;
  const std::size_t width = (steps.size() + limit - 1) / limit;
  out.reserve(steps.size() / width + 1);
  for (std::size_t i = 0; i < steps.size(); i += width) {
    const StepPoint* const first = &steps[i];
    const StepPoint* const last = first + std::min(width, steps.size() - i);
    const Range3 loss = range_of(first, last, &StepPoint::loss), norm = range_of(first, last, &StepPoint::grad_norm);
    std::int64_t skipped = 0;
    for (const StepPoint* s = first; s != last; ++s) skipped += s->skipped;
    out.push_back({last[-1].step, last[-1].tokens, last[-1].seconds, loss.mean, loss.least, loss.greatest, norm.mean,
                   norm.least, norm.greatest, last[-1].lr, skipped});
  }
  return out;
}

double default_half_life(const std::vector<History>& runs) {
  double longest = 0;
  for (const History& run : runs) longest = std::max(longest, run.last_step);
  return std::max(0.5, std::round(longest / 200));
}

void smooth_runs(std::vector<History>& runs, double half_life) {
  for (History& run : runs) {
    std::vector<double> at, loss, norm;
    for (const Bucket& bucket : run.buckets) {
      at.push_back(bucket.step);
      loss.push_back(bucket.loss);
      norm.push_back(bucket.norm);
    }
    run.smooth = ema(at, loss, half_life);
    // The average of a run that had diverged would go on as a level line.
    for (std::size_t i = run.buckets.size(); i-- > 0 && run.buckets[i].step >= run.diverged_at;) {
      if (!std::isfinite(run.buckets[i].loss)) run.smooth[i] = kMissing;
    }
    run.smooth_norm = ema(at, norm, half_life);
  }
}

bool is_bookkeeping(const std::string& path) {
  return path == "train.seed" || path == "data.seed" || path == "threads" || path.starts_with("log.") ||
         path.starts_with("checkpoint.") || path.starts_with("eval.sample");
}

std::string without_seed(const std::string& name, std::string* seed) {
  std::size_t digits = name.size();
  while (digits > 0 && std::isdigit(static_cast<unsigned char>(name[digits - 1]))) --digits;
  if (digits == name.size()) return name;
  std::size_t end = digits;
  while (end > 0 && (name[end - 1] == '=' || name[end - 1] == '-' || name[end - 1] == '_')) --end;
  const std::size_t word = name.compare(end >= 4 ? end - 4 : 0, 4, "seed") == 0 && end >= 4 ? 4
                           : end >= 1 && name[end - 1] == 's' ? 1
                                                              : 0;
  if (word == 0 || end == word) return name;
  end -= word;
  // "loss3" is a name, "loss-s3" a seed: the word stands alone.
  if (std::string("-_. ").find(name[end - 1]) == std::string::npos || end == 1) return name;
  if (seed) *seed = name.substr(digits);
  return name.substr(0, end - 1);
}

std::size_t Group::diverged() const {
  return static_cast<std::size_t>(
      std::count_if(runs.begin(), runs.end(), [](const History* run) { return run->state == State::diverged; }));
}

std::vector<Group> group_runs(const std::vector<History>& runs) {
  std::vector<Group> groups;
  std::vector<std::string> keys;
  for (const History& run : runs) {
    std::string key = run.group, name = run.group;
    if (key.empty()) {
      name = without_seed(run.name);
      for (const auto& [path, value] : run.info.config) {
        if (!is_bookkeeping(path)) key += path + "=" + value + "\n";
      }
      if (run.info.config.empty()) key = name;
    }
    std::size_t found = 0;  // a path may lead to another tokenizer than yesterday
    while (found < keys.size() &&
           (keys[found] != key || (run.group.empty() && !same_tokens(groups[found].runs[0]->info, run.info))))
      ++found;
    if (found == keys.size()) {
      keys.push_back(key);
      int same = 1;
      const std::string wanted = name;
      while (std::any_of(groups.begin(), groups.end(), [&](const Group& g) { return g.name == name; }))
        name = fmt::format("{} #{}", wanted, ++same);
      groups.push_back({name, {}, {}});
    }
    groups[found].runs.push_back(&run);
  }
  choose_compared(groups);
  return groups;
}

double x_of(const Bucket& bucket, XAxis axis) {
  return axis == XAxis::step ? bucket.step : axis == XAxis::tokens ? bucket.tokens : bucket.seconds;
}
double x_of(const ValPoint& val, XAxis axis) {
  return axis == XAxis::step ? val.step : axis == XAxis::tokens ? val.tokens : val.seconds;
}
bool has_axis(const History& run, XAxis axis) { return std::isfinite(last_x(run, axis)); }

double smooth_at(const History& run, XAxis axis, double x, std::vector<double> History::*curve) {
  const auto it = std::lower_bound(run.buckets.begin(), run.buckets.end(), x,
                                   [&](const Bucket& b, double at) { return x_of(b, axis) < at; });
  if (it == run.buckets.end()) return kMissing;
  const auto i = static_cast<std::size_t>(it - run.buckets.begin());
  const double right = x_of(*it, axis);
  const std::vector<double>& y = run.*curve;
  if (right == x) return y[i];
  if (i == 0) return kMissing;
  const double left = x_of(run.buckets[i - 1], axis);
  return y[i - 1] + (y[i] - y[i - 1]) * (x - left) / (right - left);
}

BandCurve mean_curve(const Group& group, XAxis axis, int points, std::vector<double> History::*curve) {
  BandCurve out;
  std::vector<const History*> runs;
  for (const History* run : group.shown()) {
    if (has_axis(*run, axis)) runs.push_back(run);
  }
  for (const double x : common_grid(runs, axis, points)) {
    double sum = 0, low = INFINITY, high = -INFINITY;
    for (const History* run : runs) {
      const double y = smooth_at(*run, axis, x, curve);
      sum += y;
      low = std::min(low, y);
      high = std::max(high, y);
    }
    out.x.push_back(x);
    out.y.push_back(sum / static_cast<double>(runs.size()));
    out.low.push_back(low);
    out.high.push_back(high);
  }
  return out;
}

std::vector<std::pair<const History*, const History*>> pairs_by_seed(const Group& a, const Group& b) {
  std::vector<std::pair<const History*, const History*>> pairs;
  std::vector<const History*> free = b.compared;
  for (const History* run : a.compared) {
    const auto partner =
        std::find_if(free.begin(), free.end(), [&](const History* other) { return other->seed == run->seed; });
    if (partner == free.end()) continue;
    pairs.emplace_back(run, *partner);
    free.erase(partner);
  }
  return pairs;
}

BandCurve difference_curve(const Group& a, const Group& b, int points) {
  BandCurve curve;
  const auto pairs = pairs_by_seed(a, b);
  std::vector<const History*> runs;
  for (const auto& [left, right] : pairs) {
    runs.push_back(left);
    runs.push_back(right);
  }
  if (runs.empty()) return curve;
  const double reach = pairs.size() > 1 ? student_t_quantile(0.975, static_cast<double>(pairs.size() - 1)) /
                                              std::sqrt(static_cast<double>(pairs.size()))
                                        : kMissing;
  std::vector<double> d(pairs.size());
  for (const double x : common_grid(runs, XAxis::step, points)) {
    for (std::size_t i = 0; i < pairs.size(); ++i)
      d[i] = smooth_at(*pairs[i].second, XAxis::step, x) - smooth_at(*pairs[i].first, XAxis::step, x);
    const MeanSpread s = mean_spread(d);
    if (s.n < static_cast<int>(pairs.size())) continue;
    curve.x.push_back(x);
    curve.y.push_back(s.mean);
    curve.low.push_back(s.mean - reach * s.deviation);
    curve.high.push_back(s.mean + reach * s.deviation);
  }
  return curve;
}

}  // namespace nsa::report
