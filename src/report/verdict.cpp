// What a comparison says: one sentence per group, and the final table.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "report/comparison.h"

namespace nsa::report {
namespace {

Cell difference_cell(const Row& row, std::size_t g) {
  const PairedDifference& d = row.differences[g];
  if (!std::isfinite(d.mean)) return {"\u2013", "", false};
  const bool share_makes_sense = row.unit != Unit::loss && d.base != 0;
  const std::string share = share_makes_sense ? format_signed(d.mean / d.base, Unit::share) : "";
  if (row.kind == Row::Kind::exact) return {format_signed(d.mean, row.unit), d.mean != 0 ? share : "", false};
  const int decimals = row.unit == Unit::loss ? decimals_for(d.std_error) : -1;
  Cell cell{format_signed(d.mean, row.unit, decimals), "", d.noise_known() && !d.within_noise()};
  if (d.noise_known()) cell.text += " \u00B1 " + format_value(d.std_error, row.unit, decimals);
  cell.small = (share.empty() || d.mean == 0 ? "" : share + ", ") + d.verdict();
  return cell;
}

/// "b diverged (2 of 3 runs, the first at step 41)"; "" when no run of the group did.
std::string divergence(const Group& group) {
  double first = INFINITY;
  for (const History* run : group.runs) {
    if (run->state == State::diverged) first = std::min(first, run->diverged_at);
  }
  if (!std::isfinite(first)) return {};
  const std::string where = "at step " + format_value(first, Unit::whole);
  if (group.runs.size() == 1) return fmt::format("{} diverged {}", group.name, where);
  return fmt::format("{} diverged ({} of {} runs, the first {})", group.name, group.diverged(), group.runs.size(),
                     where);
}

/// Why the losses of these two groups say nothing about each other.
std::string obstacle(const Comparison& c, const Group& a, const Group& b) {
  std::string out;
  for (const Group* group : {&a, &b}) {
    if (group->compared.empty()) out += (out.empty() ? "" : ", ") + divergence(*group);
  }
  if (!out.empty()) return out + ": there is no loss at the end to compare";
  if (c.measure == Measure::nats_per_token) return "cannot be compared, because one of them has none";
  const auto knows = [](const Group& group) {
    return std::any_of(group.compared.begin(), group.compared.end(),
                       [](const History* run) { return std::isfinite(bytes_per_token(*run)); });
  };
  const std::string who = knows(a) ? b.name : knows(b) ? a.name : "both";
  return fmt::format(
      "cannot be compared: the tokenizers differ, so that only bits per byte could decide, and {} {} none", who,
      who == "both" ? "have" : "has");
}

/// "; not a final result: b stopped at step 700 of 2,000" when a run that was compared has not reached its end.
std::string early(const Group& a, const Group& b) {
  const History* shortest = nullptr;
  const Group* its_group = nullptr;
  for (const Group* group : {&a, &b}) {
    for (const History* run : group->compared) {
      if (run->whole() || (shortest && shortest->last_step <= run->last_step)) continue;
      shortest = run;
      its_group = group;
    }
  }
  if (!shortest) return {};
  return fmt::format("; not a final result: {} {} at step {} of {}", its_group->name,
                     shortest->state == State::running ? "is still" : "stopped",
                     format_value(shortest->last_step, Unit::whole),
                     format_value(shortest->info.planned_steps(), Unit::whole));
}

/// "3 runs, 1 diverged"
std::string count_of(const Group& group) {
  const std::size_t n = group.runs.size(), diverged = group.diverged();
  return fmt::format("{} {}{}", n, n == 1 ? "run" : "runs", diverged ? fmt::format(", {} diverged", diverged) : "");
}

}  // namespace

std::vector<std::string> verdicts(const Comparison& c) {
  std::vector<std::string> out;
  for (std::size_t g = 1; g < c.groups.size(); ++g) {
    const Group &first = c.groups[0], &group = c.groups[g];
    const auto decides = std::find_if(c.rows.begin(), c.rows.end(), [&](const Row& r) {
      return r.kind == Row::Kind::loss && std::isfinite(r.differences[g].mean);
    });
    std::string text = fmt::format("{} \u2212 {}: ", group.name, first.name);
    if (decides == c.rows.end()) {
      out.push_back(text + obstacle(c, first, group) + ".");
      continue;
    }
    const Row& row = *decides;
    const PairedDifference& d = row.differences[g];
    text += row.label + " ";
    if (!d.noise_known()) {
      text += fmt::format("{} at step {}; noise unknown: {}", format_signed(d.mean, row.unit),
                          format_value(row.step, Unit::whole),
                          d.pairs == 1 ? "one seed cannot tell a difference from chance" : "no seed in common");
    } else {
      const int decimals = decimals_for(d.std_error);
      text += fmt::format("{} \u00B1 {} at step {} (95 % interval {} to {}, {} seeds): {}",
                          format_signed(d.mean, row.unit, decimals), format_value(d.std_error, row.unit, decimals),
                          format_value(row.step, Unit::whole), format_value(d.low, row.unit, decimals),
                          format_value(d.high, row.unit, decimals), d.pairs, d.verdict());
      if (!d.within_noise()) text += " beyond noise";
    }
    text += early(first, group);
    for (const Group* which : {&first, &group}) {
      if (which->diverged()) text += "; " + divergence(*which);
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
    table[0].push_back({group.name, group.runs.size() == 1 && many ? "" : count_of(group), false});
  for (std::size_t g = 1; g < c.groups.size() && !many; ++g)
    table[0].push_back(
        {fmt::format("{} \u2212 {}", c.groups[g].name, c.groups[0].name), "\u00B1 standard error", false});
  for (const Row& row : c.rows) {
    std::vector<Cell> line;
    line.push_back({row.label, std::isfinite(row.step) ? "step " + format_value(row.step, Unit::whole) : "", false});
    for (std::size_t g = 0; g < c.groups.size(); ++g) {
      const MeanSpread& s = row.groups[g];
      const bool of_losses = row.kind == Row::Kind::loss || row.kind == Row::Kind::apart;
      Cell cell{of_losses && c.groups[g].compared.empty() ? "diverged" : format_value(s.mean, row.unit), "", false};
      if (row.kind != Row::Kind::exact && s.n > 1) cell.small = "sd " + format_value(s.deviation, row.unit);
      if (many && g > 0 && (row.kind == Row::Kind::loss || row.kind == Row::Kind::measured)) {
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
