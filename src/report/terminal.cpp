#include "report/terminal.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "core/text.h"

namespace nsa::report {
namespace {

constexpr char kMarks[] = "*+ox#@%=";
constexpr std::size_t kMarkCount = sizeof(kMarks) - 1;

/// Least and greatest finite y from x >= from on.
bool value_range(const std::vector<TextCurve>& curves, double from, double& low, double& high) {
  low = INFINITY;
  high = -INFINITY;
  for (const TextCurve& curve : curves) {
    for (std::size_t i = 0; i < curve.x.size(); ++i) {
      if (!(curve.x[i] >= from) || !std::isfinite(curve.y[i])) continue;
      low = std::min(low, curve.y[i]);
      high = std::max(high, curve.y[i]);
    }
  }
  return low <= high;
}

std::string axis_line(double x_min, double x_max, std::size_t margin, int width) {
  std::string marks(margin, ' '), texts(margin + static_cast<std::size_t>(width), ' ');
  marks += "+" + std::string(static_cast<std::size_t>(width) - 1, '-');
  std::size_t free_from = 0;
  for (const Tick& tick : nice_ticks(x_min, x_max, std::max(2, width / 14), Unit::count)) {
    const auto at =
        margin + static_cast<std::size_t>(std::lround((tick.value - x_min) / (x_max - x_min) * (width - 1)));
    marks[at] = '+';
    const std::size_t begin = at - std::min(at, tick.text.size() / 2);
    if (begin < free_from || begin + tick.text.size() > texts.size()) continue;
    texts.replace(begin, tick.text.size(), tick.text);
    free_from = begin + tick.text.size() + 2;
  }
  texts.erase(texts.find_last_not_of(' ') + 1);
  return marks + "\n" + texts + "\n";
}

}  // namespace

std::string plot_text(const std::vector<TextCurve>& curves, int columns, int rows) {
  double low = 0, high = 0, x_min = INFINITY, x_max = -INFINITY;
  for (const TextCurve& curve : curves) {
    for (std::size_t i = 0; i < curve.x.size(); ++i) {
      if (!std::isfinite(curve.x[i]) || !std::isfinite(curve.y[i])) continue;
      x_min = std::min(x_min, curve.x[i]);
      x_max = std::max(x_max, curve.x[i]);
    }
  }
  if (x_min > x_max) return {};
  if (x_max == x_min) x_max = x_min + 1;
  if (!value_range(curves, x_min + 0.05 * (x_max - x_min), low, high)) value_range(curves, -INFINITY, low, high);
  if (high - low < 1e-9) high = low + std::max(1e-3, std::fabs(low) * 0.01);
  const std::vector<Tick> ticks = nice_ticks(low, high, rows / 4, Unit::plain);
  std::size_t margin = 2;
  for (const Tick& tick : ticks) margin = std::max(margin, static_cast<std::size_t>(text_length(tick.text)) + 2);
  const int width = std::max(20, columns - static_cast<int>(margin) - 1);

  std::vector<std::string> grid(static_cast<std::size_t>(rows), std::string(static_cast<std::size_t>(width), ' '));
  for (std::size_t c = 0; c < curves.size(); ++c) {
    for (std::size_t i = 0; i < curves[c].x.size(); ++i) {
      const double y = (high - curves[c].y[i]) / (high - low), x = (curves[c].x[i] - x_min) / (x_max - x_min);
      if (!(y >= 0) || !(y <= 1) || !(x >= 0)) continue;
      grid[static_cast<std::size_t>(std::lround(y * (rows - 1)))]
          [static_cast<std::size_t>(std::lround(x * (width - 1)))] = kMarks[c % kMarkCount];
    }
  }
  std::string out;
  for (int r = 0; r < rows; ++r) {
    std::string label;
    for (const Tick& tick : ticks) {
      if (std::lround((high - tick.value) / (high - low) * (rows - 1)) == r) label = tick.text;
    }
    std::string line = grid[static_cast<std::size_t>(r)];
    line.erase(line.find_last_not_of(' ') + 1);
    out += std::string(margin - 1 - static_cast<std::size_t>(text_length(label)), ' ') + label + " |" + line + "\n";
  }
  out += axis_line(x_min, x_max, margin, width);
  out += "  ";
  for (std::size_t c = 0; c < std::min(curves.size(), kMarkCount); ++c)
    out += fmt::format("{}{} {}", c ? "   " : "", kMarks[c], curves[c].name);
  return out + (curves.size() > kMarkCount ? fmt::format("   and {} more", curves.size() - kMarkCount) : "") + "\n";
}

std::string report_text(const Comparison& c, int columns) {
  std::string out;
  for (const std::string& verdict : verdicts(c)) out += verdict + "\n";
  const CellTable cells = final_table(c);
  Table table;
  for (const auto& row : cells) {
    std::vector<std::string> line;
    for (const Cell& cell : row)
      line.push_back(cell.small.empty() || cell.small.starts_with("sd ")
                         ? cell.text
                         : fmt::format("{} ({})", cell.text, cell.small));
    if (table.head.empty()) {
      table.head = std::move(line);
    } else {
      table.rows.push_back(std::move(line));
    }
  }
  out += (out.empty() ? "" : "\n") + to_text(table) + "\n";
  std::vector<TextCurve> curves;
  for (const Group& group : c.groups) {
    const BandCurve mean = mean_curve(group, XAxis::step, 4 * columns);
    curves.push_back({group.name + (group.compared.empty() ? " (diverged)" : ""), mean.x, mean.y});
  }
  const auto plot = [&](const std::vector<TextCurve>& of, const std::string& unit) {
    const std::string text = plot_text(of, columns, 16);
    if (!text.empty())
      out += fmt::format("training loss against step, {}, smoothed (half-life {} steps)\n{}", unit,
                         format_value(c.half_life, Unit::plain), text);
  };
  if (c.measure == Measure::none) {
    for (const TextCurve& curve : curves) plot({curve}, "nats per token of its own");
  } else {
    plot(curves, unit_of(c.measure));
  }
  for (const std::string& note : c.notes) out += note + "\n";
  return out;
}

}  // namespace nsa::report
