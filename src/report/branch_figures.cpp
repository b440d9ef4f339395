#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "report/chart_parts.h"
#include "report/figures.h"
#include "report/palette.h"

namespace nsa::report {
namespace {

constexpr const char* kBranches[3] = {"compressed", "selected", "window"};
constexpr double kSilent = 0.01, kLeastShare = 1e-4;  // docs/metrics.md; what a share's axis begins with

/// One number per layer: field [layer][column] of the records.
template <std::size_t N>
struct Column {
  std::vector<std::array<float, N>> GateRecord::*field;
  std::size_t column;
};

/// Of one layer, mean over the seeds that have it, at the steps of the first run.
template <std::size_t N>
Layer curve(const Group& group, Layer::Kind kind, std::size_t l, double place, const Column<N>& of) {
  Layer line = layer(kind, 0, fmt::format("layer {}", l));
  line.colour = ordered_colour(place);
  for (const GateRecord& at : group.shown()[0]->gates) {
    double sum = 0;
    std::size_t n = 0;
    for (const History* run : group.shown()) {
      const auto it = std::lower_bound(run->gates.begin(), run->gates.end(), at.step,
                                       [](const GateRecord& r, double step) { return r.step < step; });
      if (it == run->gates.end() || it->step != at.step || l >= ((*it).*of.field).size()) continue;
      sum += static_cast<double>(((*it).*of.field)[l][of.column]);
      ++n;
    }
    line.x.push_back(at.step);
    line.y.push_back(n ? sum / static_cast<double>(n) : kMissing);
  }
  return line;
}

bool has_values(const Layer& l) {
  return std::any_of(l.y.begin(), l.y.end(), [](double y) { return std::isfinite(y); });
}

/// A curve per layer, dark to light, named at its end; none when no run has a number.
template <std::size_t N>
void add_layers(Chart& chart, const Group& group, Layer::Kind kind, const Column<N>& of) {
  std::size_t layers = 0;
  for (const History* run : group.runs) {
    for (const GateRecord& record : run->gates) layers = std::max(layers, (record.*of.field).size());
  }
  for (std::size_t l = 0; l < layers; ++l) {
    Layer line = curve(group, kind, l, layers > 1 ? static_cast<double>(l) / static_cast<double>(layers - 1) : 0, of);
    if (kind == Layer::Kind::line) line.end_label = line.name;
    if (has_values(line)) chart.layers.push_back(std::move(line));
  }
}

Chart chart_of_group(const std::string& what, const Group& group, int index, const std::string& title, const Axis& y) {
  return chart_of(fmt::format("{}-{}", what, index), fmt::format("{}: {}", group.name, title), XAxis::step, y);
}

}  // namespace

std::vector<Chart> gate_charts(const Group& group, int index) {
  std::vector<Chart> charts;
  for (std::size_t b = 0; b < 3; ++b) {
    Chart chart = chart_of_group(fmt::format("gate-{}", b), group, index,
                                 fmt::format("gate of the {} branch", kBranches[b]), {"mean gate", Unit::plain, 0, 1});
    add_layers(chart, group, Layer::Kind::line, Column<3>{&GateRecord::layers, b});
    set_x_range(chart);
    if (!chart.layers.empty()) charts.push_back(std::move(chart));
  }
  return charts;
}

Chart entropy_chart(const Group& group, int index) {
  Chart chart = chart_of_group("entropy", group, index, "spread of the compression attention",
                               {"entropy / log(visible blocks)", Unit::plain, 0, 1});
  chart.caption =
      "1: the queries spread their compression attention evenly over the blocks they see, and the selection has "
      "nothing "
      "to go by; 0: all of it lies on one block.";
  add_layers(chart, group, Layer::Kind::line, Column<1>{&GateRecord::entropy, 0});
  set_x_range(chart);
  return chart;
}

Chart coverage_chart(const Group& group, int index) {
  Chart chart = chart_of_group("coverage", group, index, "what the selected blocks cover",
                               {"share of the compression attention", Unit::plain, 0, 1});
  chart.caption =
      "How much of the compression attention lies in the selected blocks; thin: in as many blocks drawn at random.";
  add_layers(chart, group, Layer::Kind::line, Column<2>{&GateRecord::coverage, 0});
  add_layers(chart, group, Layer::Kind::thin, Column<2>{&GateRecord::coverage, 1});
  set_x_range(chart);
  return chart;
}

std::vector<Chart> share_charts(const Group& group, int index) {
  std::vector<Chart> charts;
  for (std::size_t b = 0; b < 3; ++b) {
    Chart chart = chart_of_group(fmt::format("share-{}", b), group, index,
                                 fmt::format("the {} branch's share of the output", kBranches[b]),
                                 {"share of the gated output", Unit::plain, 0, 1});
    chart.y.log = true;
    chart.caption =
        "Root mean square of gate times output over the sum of the three branches'; below the grey line, at 1 %, the "
        "layer does without the branch.";
    add_layers(chart, group, Layer::Kind::line, Column<3>{&GateRecord::shares, b});
    double least = 0.5 * kSilent;
    for (Layer& line : chart.layers) {
      for (double& y : line.y) {
        if (y < kLeastShare) y = kLeastShare;  // an exact 0 has no place on the axis; NaN stays
        if (y < least) least = y;
      }
    }
    chart.y.min = std::max(kLeastShare, 0.9 * least);
    set_x_range(chart);
    if (chart.layers.empty()) continue;
    Layer silent = layer(Layer::Kind::thin, 0, "silent below 1 %");
    silent.colour = "#888888";
    silent.x = {chart.x.min, chart.x.max};
    silent.y = {kSilent, kSilent};
    chart.layers.push_back(std::move(silent));
    charts.push_back(std::move(chart));
  }
  return charts;
}

}  // namespace nsa::report
