#include "report/comparison.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <set>

#include "report/scan.h"

namespace nsa::report {
namespace {

using Quantity = std::function<double(const History&)>;

/// The runs that are compared, of all groups.
std::vector<const History*> compared_runs(const Comparison& c) {
  std::vector<const History*> runs;
  for (const Group& group : c.groups) runs.insert(runs.end(), group.compared.begin(), group.compared.end());
  return runs;
}

/// The last validation step that every validated run has; NaN when there is none.
double common_val_step(const std::vector<const History*>& runs) {
  std::vector<double> common;
  bool first = true;
  for (const History* run : runs) {
    std::vector<double> own, both;
    for (const ValPoint& val : run->vals) {
      if (std::isfinite(val.value)) own.push_back(val.step);
    }
    if (own.empty()) continue;
    std::set_intersection(own.begin(), own.end(), common.begin(), common.end(), std::back_inserter(both));
    common = first ? own : both;
    first = false;
  }
  return common.empty() ? kMissing : common.back();
}

const ValPoint* val_at(const History& run, double step) {
  const auto it = std::find_if(run.vals.begin(), run.vals.end(), [&](const ValPoint& v) { return v.step == step; });
  return it == run.vals.end() ? nullptr : &*it;
}

double seconds_at(const History& run, double step) {
  for (const Bucket& bucket : run.buckets) {
    if (bucket.step >= step) return bucket.seconds;
  }
  return kMissing;
}

Row make_row(const Comparison& c, const std::string& label, Unit unit, double step, Row::Kind kind,
             const Quantity& quantity) {
  Row row{label, unit, step, kind, {}, {}};
  const bool of_losses = kind == Row::Kind::loss || kind == Row::Kind::apart;
  for (const Group& group : c.groups) {
    std::vector<double> values;
    for (const History* run : of_losses ? group.compared : group.shown()) values.push_back(quantity(*run));
    row.groups.push_back(mean_spread(values));
    row.differences.push_back({0, kMissing, kMissing, kMissing, kMissing, kMissing});
    if (&group == &c.groups[0] || kind == Row::Kind::apart) continue;
    std::vector<double> a, b;
    for (const auto& [left, right] : pairs_by_seed(c.groups[0], group)) {
      a.push_back(quantity(*left));
      b.push_back(quantity(*right));
    }
    PairedDifference& d = row.differences.back();
    d = paired_difference(a, b);
    // Without a common seed the means can still be subtracted; how far to trust that is unknown.
    if (d.pairs == 0) {
      d.mean = row.groups.back().mean - row.groups[0].mean;
      d.base = row.groups[0].mean;
    }
  }
  return row;
}

using AddRow = std::function<void(const std::string& label, Unit, Row::Kind, double step, const Quantity&)>;

/// What decides comes first: at the last validation that all have, in the unit in which they can be compared.
void add_losses(const Comparison& c, double val_step, double last_common, const AddRow& add) {
  const auto at_val = [&](double ValPoint::*field) {
    return [=](const History& run) { return val_at(run, val_step) ? val_at(run, val_step)->*field : kMissing; };
  };
  const Quantity training = [&](const History& run) { return smooth_at(run, XAxis::step, last_common); };
  const bool same = c.measure == Measure::nats_per_token, validated = std::isfinite(val_step);
  const std::string own = same ? "" : ", nats per token of its own";
  const Row::Kind nats = same ? Row::Kind::loss : Row::Kind::apart;
  if (validated && same) add("validation loss", Unit::loss, nats, val_step, at_val(&ValPoint::loss));
  if (validated) add("bits per byte", Unit::loss, Row::Kind::loss, val_step, at_val(&ValPoint::bits_per_byte));
  if (c.measure == Measure::bits_per_byte) {
    add("training loss, smoothed, bits per byte", Unit::loss, Row::Kind::loss, last_common, training);
  } else {
    add("training loss, smoothed" + own, Unit::loss, nats, last_common, training);
  }
  if (validated && !same) add("validation loss" + own, Unit::loss, nats, val_step, at_val(&ValPoint::loss));
  if (!validated)  // each at a step of its own: nothing to subtract
    add("last validation loss" + own, Unit::loss, Row::Kind::apart, kMissing,
        [](const History& run) { return run.vals.empty() ? kMissing : run.vals.back().loss; });
}

void add_rows(Comparison& c) {
  const std::vector<const History*> runs = compared_runs(c);
  const double val_step = common_val_step(runs);
  double last_common = runs.empty() ? kMissing : INFINITY;
  for (const History* run : runs) last_common = std::min(last_common, run->last_step);
  c.compared_step = std::isfinite(val_step) ? val_step : last_common;
  const AddRow add = [&](const std::string& label, Unit unit, Row::Kind kind, double step, const Quantity& quantity) {
    Row row = make_row(c, label, unit, step, kind, quantity);
    if (std::any_of(row.groups.begin(), row.groups.end(), [](const MeanSpread& s) { return s.n > 0; }))
      c.rows.push_back(std::move(row));
  };
  const auto field = [](double Provenance::*member) {
    return [member](const History& run) { return run.info.*member; };
  };
  constexpr Row::Kind kMeasured = Row::Kind::measured, kExact = Row::Kind::exact;
  add_losses(c, val_step, last_common, add);
  const auto masked = [](const History* run) {
    return std::any_of(run->vals.begin(), run->vals.end(), [](const ValPoint& v) { return std::isfinite(v.counted); });
  };
  if (std::any_of(runs.begin(), runs.end(), masked)) {  // elsewhere it says less than the loss
    add("answers right", Unit::share, kMeasured, val_step, [&](const History& run) {
      const ValPoint* val = val_at(run, val_step);
      return val ? val->accuracy : kMissing;
    });
  }
  add("tokens per second", Unit::per_second, kMeasured, kMissing,
      [](const History& run) { return run.median_tokens_per_s; });
  add("time per step", Unit::milliseconds, kMeasured, kMissing, [](const History& run) { return run.median_ms; });
  if (std::isfinite(last_common))
    add("training time", Unit::seconds, kMeasured, last_common,
        [&](const History& run) { return seconds_at(run, last_common); });
  add("memory", Unit::bytes, kExact, kMissing, field(&Provenance::memory_bytes));
  add("parameters", Unit::count, kExact, kMissing, field(&Provenance::parameters));
  add("FLOPs per token", Unit::flops, kExact, kMissing, field(&Provenance::flops_per_token));
  add("tokens", Unit::count, kExact, kMissing, [](const History& run) { return run.last_tokens; });
  add("steps", Unit::whole, kExact, kMissing, [](const History& run) { return run.last_step; });
  add("skipped steps", Unit::whole, kExact, kMissing,
      [](const History& run) { return static_cast<double>(run.skipped); });
}

void add_config_differences(Comparison& c) {
  std::vector<std::string> paths;
  for (const Group& group : c.groups) {
    for (const auto& [path, value] : group.runs[0]->info.config) {
      if (std::find(paths.begin(), paths.end(), path) == paths.end()) paths.push_back(path);
    }
  }
  for (const std::string& path : paths) {
    if (is_bookkeeping(path)) continue;
    ConfigDifference d{path, {}};
    for (const Group& group : c.groups) d.values.push_back(group.runs[0]->info.config_value(path));
    if (std::any_of(d.values.begin(), d.values.end(), [&](const std::string& v) { return v != d.values[0]; }))
      c.config.push_back(std::move(d));
  }
}

std::string joined(const std::vector<std::string>& names) {
  std::string out;
  const std::size_t shown = std::min<std::size_t>(names.size(), 6);
  for (std::size_t i = 0; i < shown; ++i) out += (i ? ", " : "") + names[i];
  return names.size() > shown ? fmt::format("{} and {} more", out, names.size() - shown) : out;
}

void note_runs(Comparison& c, const std::vector<History>& runs, const std::string& sentence,
               const std::function<bool(const History&)>& applies) {
  std::vector<std::string> names;
  for (const History& run : runs) {
    if (applies(run)) names.push_back(run.name);
  }
  if (!names.empty()) c.notes.push_back(fmt::format("{}: {}.", sentence, joined(names)));
}

/// What has to be known about the unit in which losses are compared.
void add_measure_notes(Comparison& c, const std::vector<History>& runs) {
  if (c.measure == Measure::nats_per_token) return;
  const auto knows = [](const History& run) { return std::isfinite(bytes_per_token(run)); };
  if (c.measure == Measure::none) {
    c.notes.push_back(
        "These runs cannot be compared: their tokenizers differ, so that a nat per token of one is not one of the "
        "other, and bits per byte is missing. It is recorded when data.tokenizer is given and data.val validated.");
  } else {
    c.notes.push_back(
        "The runs have different tokenizers: their losses are compared in bits per byte, never per token. Whether they "
        "were validated on the same text is not known here.");
    note_runs(c, runs, "Training losses turned into bits per byte with the bytes per token of the validation text",
              [&](const History& r) { return knows(r) && !(r.info.bytes_per_token > 0); });
    note_runs(c, runs, "Part of the validation text, another one for each tokenizer (eval.batches)",
              [](const History& r) { return scan_number(r.info.config_value("eval.batches")) > 0; });
  }
  note_runs(c, runs, "Without bits per byte", [&](const History& r) { return !knows(r); });
}

void add_notes(Comparison& c, const std::vector<History>& runs) {
  const std::vector<const History*> compared = compared_runs(c);
  const auto note = [&](const char* sentence, const std::function<bool(const History&)>& applies) {
    note_runs(c, runs, sentence, applies);
  };
  const auto values = [](const auto& list, const auto& f) {
    std::set<std::string> out;
    for (const auto& run : list) out.insert(f(run));
    out.erase("");
    return out.size();
  };
  add_measure_notes(c, runs);
  std::vector<std::string> diverged;
  for (const History& run : runs) {
    if (run.state == State::diverged)
      diverged.push_back(fmt::format("{} at step {}", run.name, format_value(run.diverged_at, Unit::whole)));
  }
  if (!diverged.empty()) c.notes.push_back(fmt::format("Diverged: {}.", joined(diverged)));
  note("Still running when this page was made", [](const History& r) { return r.state == State::running; });
  note("Stopped before the planned end", [](const History& r) { return r.state == State::stopped; });
  note("Not at its end, as others of its configuration are, and therefore left out of the comparison",
       [&](const History& r) {
         return r.state != State::diverged && std::find(compared.begin(), compared.end(), &r) == compared.end();
       });
  if (values(compared, [](const History* r) { return fmt::format("{}", r->last_step); }) > 1) {
    c.notes.push_back(
        "The runs have different lengths; what changes with training is compared at the step named in the table.");
  }
  note("Steps whose loss is not a finite number",
       [](const History& r) { return r.non_finite > 0 && r.state != State::diverged; });
  note("Lines that could not be read were passed over", [](const History& r) { return r.broken_lines > 0; });
  std::vector<std::string> more;
  for (const ConfigDifference& d : c.config) {
    if (!d.path.starts_with("model.attention.")) more.push_back(d.path);
  }
  if (!more.empty())
    c.notes.push_back(fmt::format("The configurations differ in more than attention: {}.", joined(more)));
  if (values(runs, [](const History& r) { return r.info.commit; }) > 1)
    c.notes.push_back("The runs were made by different commits of the program.");
  if (values(runs, [](const History& r) { return r.info.machine; }) > 1)
    c.notes.push_back("The runs were made on different machines: their speeds cannot be compared.");
  for (std::size_t g = 1; g < c.groups.size(); ++g) {
    const Group &first = c.groups[0], &group = c.groups[g];
    if (first.compared.empty() || group.compared.empty() || !pairs_by_seed(first, group).empty()) continue;
    c.notes.push_back(fmt::format("{} and {} have no seed in common, so the noise of their difference is unknown.",
                                  first.name, group.name));
    if (c.groups.size() > 6) break;
  }
}

}  // namespace

Comparison compare_runs(const std::vector<History>& runs, double half_life, Measure measure) {
  Comparison c;
  c.half_life = half_life;
  c.measure = measure;
  c.groups = group_runs(runs);
  if (c.groups.empty()) return c;
  add_rows(c);
  add_config_differences(c);
  add_notes(c, runs);
  return c;
}

}  // namespace nsa::report
