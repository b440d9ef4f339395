#include "report/comparison.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <set>

namespace nsa::report {
namespace {

using Quantity = std::function<double(const History&)>;

/// The last validation step that every validated run has; NaN when there is none.
double common_val_step(const std::vector<History>& runs) {
  std::vector<double> common;
  bool first = true;
  for (const History& run : runs) {
    std::vector<double> own, both;
    for (const ValPoint& val : run.vals) {
      if (std::isfinite(val.loss)) own.push_back(val.step);
    }
    if (run.vals.empty()) continue;
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

Row make_row(const Comparison& c, const std::string& label, Unit unit, double step, bool exact,
             const Quantity& quantity) {
  Row row{label, unit, step, exact, {}, {}};
  for (const Group& group : c.groups) {
    std::vector<double> values;
    for (const History* run : group.runs) values.push_back(quantity(*run));
    row.groups.push_back(mean_spread(values));
    std::vector<double> a, b;
    for (const auto& [left, right] : pairs_by_seed(c.groups[0], group)) {
      a.push_back(quantity(*left));
      b.push_back(quantity(*right));
    }
    row.differences.push_back(&group == &c.groups[0]
                                  ? PairedDifference{0, kMissing, kMissing, kMissing, kMissing, kMissing}
                                  : paired_difference(a, b));
    PairedDifference& d = row.differences.back();
    // Without a common seed the means can still be subtracted; how far to trust that is unknown.
    if (d.pairs == 0 && row.differences.size() > 1) {
      d.mean = row.groups.back().mean - row.groups[0].mean;
      d.base = row.groups[0].mean;
    }
  }
  return row;
}

void add_rows(Comparison& c, const std::vector<History>& runs) {
  const double val_step = common_val_step(runs);
  double last_common = INFINITY;
  for (const History& run : runs) last_common = std::min(last_common, run.last_step);
  const auto add = [&](const std::string& label, Unit unit, bool exact, const Quantity& quantity,
                       double step = kMissing) {
    Row row = make_row(c, label, unit, step, exact, quantity);
    if (std::any_of(row.groups.begin(), row.groups.end(), [](const MeanSpread& s) { return s.n > 0; }))
      c.rows.push_back(std::move(row));
  };
  const auto field = [](double Provenance::*member) {
    return [member](const History& run) { return run.info.*member; };
  };
  if (std::isfinite(val_step)) {
    add(
        "validation loss", Unit::loss, false,
        [&](const History& run) { return val_at(run, val_step) ? val_at(run, val_step)->loss : kMissing; }, val_step);
    add(
        "bits per byte", Unit::loss, false,
        [&](const History& run) { return val_at(run, val_step) ? val_at(run, val_step)->bits_per_byte : kMissing; },
        val_step);
  } else {
    add("last validation loss", Unit::loss, false,
        [](const History& run) { return run.vals.empty() ? kMissing : run.vals.back().loss; });
  }
  add(
      "training loss, smoothed", Unit::loss, false,
      [&](const History& run) { return smooth_at(run, XAxis::step, last_common); }, last_common);
  c.compared_step = std::isfinite(val_step) ? val_step : last_common;
  add("tokens per second", Unit::per_second, false, [](const History& run) { return run.median_tokens_per_s; });
  add("time per step", Unit::milliseconds, false, [](const History& run) { return run.median_ms; });
  add(
      "training time", Unit::seconds, false, [&](const History& run) { return seconds_at(run, last_common); },
      last_common);
  add("memory", Unit::bytes, true, field(&Provenance::memory_bytes));
  add("parameters", Unit::count, true, field(&Provenance::parameters));
  add("FLOPs per token", Unit::flops, true, field(&Provenance::flops_per_token));
  add("tokens", Unit::count, true, [](const History& run) { return run.last_tokens; });
  add("steps", Unit::whole, true, [](const History& run) { return run.last_step; });
  add("skipped steps", Unit::whole, true, [](const History& run) { return static_cast<double>(run.skipped); });
  if (c.rows.empty())
    add("steps read", Unit::whole, true, [](const History& run) { return static_cast<double>(run.steps); });
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

void add_notes(Comparison& c, const std::vector<History>& runs) {
  const auto note = [&](const char* sentence, const std::function<bool(const History&)>& applies) {
    std::vector<std::string> names;
    for (const History& run : runs) {
      if (applies(run)) names.push_back(run.name);
    }
    if (!names.empty()) c.notes.push_back(fmt::format("{}: {}.", sentence, joined(names)));
  };
  const auto values = [&](const std::function<std::string(const History&)>& f) {
    std::set<std::string> out;
    for (const History& run : runs) out.insert(f(run));
    out.erase("");
    return out.size();
  };
  note("Still running when this page was made", [](const History& r) { return r.state == State::running; });
  note("Stopped before the planned end", [](const History& r) { return r.state == State::stopped; });
  if (values([](const History& r) { return fmt::format("{}", r.last_step); }) > 1) {
    c.notes.push_back(
        "The runs have different lengths; what changes with training is compared at the step named in the table.");
  }
  note("Steps whose loss is not a finite number", [](const History& r) { return r.non_finite > 0; });
  note("Lines that could not be read were passed over", [](const History& r) { return r.broken_lines > 0; });
  std::vector<std::string> more;
  for (const ConfigDifference& d : c.config) {
    if (!d.path.starts_with("model.attention.")) more.push_back(d.path);
  }
  if (!more.empty())
    c.notes.push_back(fmt::format("The configurations differ in more than attention: {}.", joined(more)));
  if (values([](const History& r) { return r.info.commit; }) > 1)
    c.notes.push_back("The runs were made by different commits of the program.");
  if (values([](const History& r) { return r.info.machine; }) > 1)
    c.notes.push_back("The runs were made on different machines: their speeds cannot be compared.");
  if (c.groups.size() > 1) {
    for (const Group& group : c.groups) {
      if (&group != &c.groups[0] && pairs_by_seed(c.groups[0], group).empty()) {
        c.notes.push_back(fmt::format("{} and {} have no seed in common, so the noise of their difference is unknown.",
                                      c.groups[0].name, group.name));
        if (c.groups.size() > 6) break;
      }
    }
  }
}

Cell difference_cell(const Row& row, std::size_t g) {
  const PairedDifference& d = row.differences[g];
  if (!std::isfinite(d.mean)) return {"\u2013", "", false};
  const bool share_makes_sense = row.unit != Unit::loss && d.base != 0;
  const std::string share = share_makes_sense ? format_signed(d.mean / d.base, Unit::share) : "";
  if (row.exact) return {format_signed(d.mean, row.unit), d.mean != 0 ? share : "", false};
  const int decimals = row.unit == Unit::loss ? decimals_for(d.std_error) : -1;
  Cell cell{format_signed(d.mean, row.unit, decimals), "", d.noise_known() && !d.within_noise()};
  if (d.noise_known()) cell.text += " \u00B1 " + format_value(d.std_error, row.unit, decimals);
  cell.small = (share.empty() || d.mean == 0 ? "" : share + ", ") + d.verdict();
  return cell;
}

}  // namespace

Comparison compare_runs(const std::vector<History>& runs, double half_life) {
  Comparison c;
  c.half_life = half_life;
  c.groups = group_runs(runs);
  if (c.groups.empty()) return c;
  add_rows(c, runs);
  add_config_differences(c);
  add_notes(c, runs);
  return c;
}

std::vector<std::string> verdicts(const Comparison& c) {
  std::vector<std::string> out;
  for (std::size_t g = 1; g < c.groups.size(); ++g) {
    const Row& row = c.rows[0];
    const PairedDifference& d = row.differences[g];
    std::string text = fmt::format("{} \u2212 {}: {} ", c.groups[g].name, c.groups[0].name, row.label);
    if (!std::isfinite(d.mean)) {
      text += "cannot be compared, because one of them has none";
    } else if (!d.noise_known()) {
      text += fmt::format("{} at step {}; noise unknown: {}", format_signed(d.mean, row.unit),
                          format_value(c.compared_step, Unit::whole),
                          d.pairs == 1 ? "one seed cannot tell a difference from chance" : "no seed in common");
    } else {
      const int decimals = decimals_for(d.std_error);
      text += fmt::format("{} \u00B1 {} at step {} (95 % interval {} to {}, {} seeds): {}",
                          format_signed(d.mean, row.unit, decimals), format_value(d.std_error, row.unit, decimals),
                          format_value(c.compared_step, Unit::whole), format_value(d.low, row.unit, decimals),
                          format_value(d.high, row.unit, decimals), d.pairs, d.verdict());
      if (!d.within_noise()) text += " beyond noise";
    }
    out.push_back(text + ".");
  }
  return out;
}

CellTable final_table(const Comparison& c) {
  const bool many = c.groups.size() > 4;
  CellTable table(1);
  table[0].push_back({"", "", false});
  for (const Group& group : c.groups)
    table[0].push_back({group.name,
                        group.runs.size() == 1 && many
                            ? ""
                            : fmt::format("{} {}", group.runs.size(), group.runs.size() == 1 ? "run" : "runs"),
                        false});
  for (std::size_t g = 1; g < c.groups.size() && !many; ++g)
    table[0].push_back(
        {fmt::format("{} \u2212 {}", c.groups[g].name, c.groups[0].name), "\u00B1 standard error", false});
  for (const Row& row : c.rows) {
    std::vector<Cell> line;
    line.push_back({row.label, std::isfinite(row.step) ? "step " + format_value(row.step, Unit::whole) : "", false});
    for (std::size_t g = 0; g < c.groups.size(); ++g) {
      const MeanSpread& s = row.groups[g];
      Cell cell{format_value(s.mean, row.unit), "", false};
      if (!row.exact && s.n > 1) cell.small = "sd " + format_value(s.deviation, row.unit);
      if (many && g > 0 && !row.exact) {
        const Cell d = difference_cell(row, g);
        cell.small = d.text + (d.small.empty() ? "" : ", " + d.small);
        cell.strong = d.strong;
      }
      line.push_back(cell);
    }
    for (std::size_t g = 1; g < c.groups.size() && !many; ++g) line.push_back(difference_cell(row, g));
    table.push_back(std::move(line));
  }
  return many ? turned(table) : table;
}

CellTable turned(const CellTable& table) {
  CellTable out(table[0].size(), std::vector<Cell>(table.size()));
  for (std::size_t i = 0; i < table.size(); ++i) {
    for (std::size_t k = 0; k < table[i].size(); ++k) out[k][i] = table[i][k];
  }
  return out;
}

}  // namespace nsa::report
