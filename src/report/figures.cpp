#include "report/figures.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <iterator>
#include <utility>

#include "report/chart_parts.h"

namespace nsa::report {
namespace {

constexpr int kGrid = 800;  // places at which a mean over seeds is taken; a wide chart has fewer pixels

Axis x_axis(XAxis axis) {
  if (axis == XAxis::tokens) return {"tokens", Unit::count};
  if (axis == XAxis::seconds) return {"training time", Unit::seconds};
  return {"step", Unit::count};
}

/// Every bucket's least and greatest value, in turn: nothing a bucket hides is lost to the eye.
Layer raw_layer(const History& run, std::size_t style, XAxis axis, double Bucket::*mean, double Bucket::*least,
                double Bucket::*greatest) {
  Layer l = layer(Layer::Kind::raw, style, run.name);
  for (const Bucket& bucket : run.buckets) {
    const double x = x_of(bucket, axis);
    if (bucket.*least == bucket.*greatest || std::isnan(bucket.*mean)) {
      l.x.push_back(x);
      l.y.push_back(bucket.*mean);
      continue;
    }
    l.x.insert(l.x.end(), {x, x});
    l.y.insert(l.y.end(), {bucket.*least, bucket.*greatest});
  }
  return l;
}

/// A smoothed mean over seeds with its band; seeds that go on alone as thin lines.
void add_mean(Chart& chart, const Group& group, std::size_t style, XAxis axis, std::vector<double> History::*member) {
  const BandCurve mean = mean_curve(group, axis, kGrid, member);
  Layer line = layer(Layer::Kind::line, style, group.name);
  line.x = mean.x;
  line.y = mean.y;
  line.end_label = group.name;
  if (group.runs.size() > 1) {
    Layer band = layer(Layer::Kind::band, style, group.name);
    band.x = mean.x;
    band.low = mean.low;
    band.high = mean.high;
    chart.layers.push_back(std::move(band));
  }
  const double end = mean.x.empty() ? -INFINITY : mean.x.back();
  std::vector<Layer> alone;
  for (const History* run : group.runs) {
    if (!has_axis(*run, axis)) continue;
    const auto& shown = group.shown();
    const double from = std::find(shown.begin(), shown.end(), run) != shown.end() ? end : -INFINITY;
    Layer rest = layer(Layer::Kind::thin, style, run->name);
    for (std::size_t i = 0; i < run->buckets.size(); ++i) {
      const double x = x_of(run->buckets[i], axis);
      if (x < from || !std::isfinite(x)) continue;
      rest.x.push_back(x);
      rest.y.push_back((run->*member)[i]);
    }
    const bool ends_with_mean = rest.x.size() < 2;
    if (run->state == State::running || run->state == State::diverged)
      (ends_with_mean ? line : rest).end = run->state == State::running ? Layer::End::running : Layer::End::diverged;
    if (!ends_with_mean) alone.push_back(std::move(rest));
  }
  // A mean of a step or two is no curve to put a name on when one seed goes far beyond it.
  if (mean.x.size() < 3 && !alone.empty()) {
    const auto longest = std::max_element(alone.begin(), alone.end(),
                                          [](const Layer& a, const Layer& b) { return a.x.back() < b.x.back(); });
    longest->end_label = std::exchange(line.end_label, "");
  }
  std::move(alone.begin(), alone.end(), std::back_inserter(chart.layers));
  chart.layers.push_back(std::move(line));
}

/// Mean of the validation losses over the seeds at the steps all of them have, with the range over the seeds; `limit`
/// points at most, evenly chosen.
Layer val_layer(const Group& group, std::size_t style, XAxis axis) {
  Layer l = layer(Layer::Kind::marks, style, group.name);
  for (const ValPoint& val : group.shown()[0]->vals) {
    double x = 0, y = 0, low = INFINITY, high = -INFINITY;
    std::size_t n = 0;
    for (const History* run : group.shown()) {
      const auto it =
          std::find_if(run->vals.begin(), run->vals.end(), [&](const ValPoint& v) { return v.step == val.step; });
      if (it == run->vals.end() || !std::isfinite(it->value)) continue;
      x += x_of(*it, axis);
      y += it->value;
      low = std::min(low, it->value);
      high = std::max(high, it->value);
      ++n;
    }
    if (n < group.shown().size()) continue;
    l.x.push_back(x / static_cast<double>(n));
    l.y.push_back(y / static_cast<double>(n));
    l.low.push_back(low);
    l.high.push_back(high);
  }
  return l;
}

Layer chosen(const Layer& all, std::size_t limit) {
  if (all.x.size() <= limit) return all;
  Layer l = layer(all.kind, static_cast<std::size_t>(all.style), all.name);
  for (std::size_t i = 0; i < limit; ++i) {
    const std::size_t k = i * (all.x.size() - 1) / (limit - 1);
    l.x.push_back(all.x[k]);
    l.y.push_back(all.y[k]);
    l.low.push_back(all.low[k]);
    l.high.push_back(all.high[k]);
  }
  return l;
}

/// Least and greatest finite value of the layers' y (and bands), from `from` on; false when there is none. A curve that
/// ran away does not stretch the axis for the others.
bool y_range(const Chart& chart, bool with_raw, double from, double& low, double& high) {
  for (const bool with_diverged : {false, true}) {
    low = INFINITY;
    high = -INFINITY;
    for (const Layer& l : chart.layers) {
      if ((l.kind == Layer::Kind::raw && !with_raw) || l.kind == Layer::Kind::rug) continue;
      if (l.end == Layer::End::diverged && !with_diverged) continue;
      for (const auto* values : {&l.y, &l.low, &l.high}) {
        for (std::size_t i = 0; i < values->size(); ++i) {
          if (!(l.x[i] >= from) || !std::isfinite((*values)[i])) continue;
          low = std::min(low, (*values)[i]);
          high = std::max(high, (*values)[i]);
        }
      }
    }
    if (low <= high) return true;
  }
  return false;
}

void set_y_range(Chart& chart, double low, double high) {
  double pad = 0.04 * (high - low);
  if (!(pad > 0)) pad = std::max(1e-6, std::fabs(high) * 0.05);
  chart.y.min = low - pad;
  chart.y.max = high + pad;
}

/// Arrow heads where raw values lie beyond the upper edge, one per ~1 % of the width; the fall from the first loss at
/// the left is no spike.
void mark_off_scale(Chart& chart, double from) {
  std::vector<Layer> heads;
  const double gap = (chart.x.max - chart.x.min) / 100;
  for (const Layer& l : chart.layers) {
    if (l.kind != Layer::Kind::raw) continue;
    Layer head = layer(Layer::Kind::off_scale, static_cast<std::size_t>(l.style), l.name);
    for (std::size_t i = 0; i < l.x.size(); ++i) {
      if (l.x[i] > from && l.y[i] > chart.y.max && (head.x.empty() || l.x[i] > head.x.back() + gap))
        head.x.push_back(l.x[i]);
    }
    if (!head.x.empty()) heads.push_back(std::move(head));
  }
  chart.layers.insert(chart.layers.end(), heads.begin(), heads.end());
}

}  // namespace

Chart chart_of(const std::string& id, const std::string& title, XAxis axis, const Axis& y) {
  Chart chart;
  chart.id = id;
  chart.title = title;
  chart.x = x_axis(axis);
  chart.y = y;
  return chart;
}

Layer layer(Layer::Kind kind, std::size_t style, const std::string& name) {
  Layer l;
  l.kind = kind;
  l.style = static_cast<int>(style);
  l.name = name;
  return l;
}

void set_x_range(Chart& chart) {
  double low = INFINITY, high = -INFINITY;
  for (const Layer& l : chart.layers) {
    for (const double x : l.x) {
      if (!std::isfinite(x)) continue;
      low = std::min(low, x);
      high = std::max(high, x);
    }
  }
  if (low > high) {
    chart.layers.clear();
    return;
  }
  chart.x.min = low < 0.3 * high ? std::min(0.0, low) : low;
  chart.x.max = high > chart.x.min ? high : chart.x.min + 1;
}

Chart loss_chart(const Comparison& c, XAxis axis, const Group* only) {
  Chart chart;
  chart.id = axis == XAxis::step ? "loss" : axis == XAxis::tokens ? "loss-tokens" : "loss-time";
  chart.title = axis == XAxis::step ? "Loss" : axis == XAxis::tokens ? "Loss against tokens" : "Loss against time";
  if (only) chart.title = fmt::format("Loss of {}", only->name);
  chart.x = x_axis(axis);
  chart.y = {fmt::format("loss, {}{}", unit_of(c.measure), only ? " of its own" : ""), Unit::loss};
  for (std::size_t g = 0; g < c.groups.size(); ++g) {
    const Group& group = c.groups[g];
    if (only && only != &group) continue;
    if (only) chart.id += fmt::format("-of-{}", g);
    if (std::none_of(group.runs.begin(), group.runs.end(), [&](const History* r) { return has_axis(*r, axis); }))
      continue;
    for (const History* run : group.runs) {
      if (has_axis(*run, axis))
        chart.layers.push_back(raw_layer(*run, g, axis, &Bucket::loss, &Bucket::loss_min, &Bucket::loss_max));
    }
    add_mean(chart, group, g, axis, &History::smooth);
    Layer vals = chosen(val_layer(group, g, axis), c.groups.size() > 12 ? 5 : 30);
    if (!vals.x.empty()) chart.layers.push_back(std::move(vals));
  }
  set_x_range(chart);
  // The first fall would squeeze everything that matters into the lowest tenth: the range is that of the curve after
  // it.
  const double from = chart.x.min + 0.08 * (chart.x.max - chart.x.min);
  double low = 0, high = 0, raw_low = 0, raw_high = 0;
  if (!y_range(chart, false, from, low, high) && !y_range(chart, true, -INFINITY, low, high)) {
    chart.layers.clear();
    return chart;
  }
  if (y_range(chart, true, from, raw_low, raw_high)) {
    const double reach = std::max({0.35 * (high - low), 0.02 * std::fabs(high), 1e-6});
    high = std::min(raw_high, high + reach);
    low = std::max(raw_low, low - reach);
  }
  set_y_range(chart, low, high);
  mark_off_scale(chart, from);
  return chart;
}

Chart difference_chart(const Comparison& c) {
  Chart chart;
  chart.id = "difference";
  chart.x = x_axis(XAxis::step);
  if (c.groups.size() < 2 || c.measure == Measure::none) return chart;
  chart.title = c.groups.size() == 2 ? fmt::format("Difference: {} \u2212 {}", c.groups[1].name, c.groups[0].name)
                                     : fmt::format("Difference from {}", c.groups[0].name);
  chart.y = {fmt::format("difference of loss, {}", unit_of(c.measure)), Unit::loss};
  chart.zero_line = true;
  double end = 0;
  for (std::size_t g = 1; g < c.groups.size(); ++g) {
    const BandCurve d = difference_curve(c.groups[0], c.groups[g], kGrid);
    if (d.x.empty()) continue;
    Layer band = layer(Layer::Kind::band, g, c.groups[g].name), line = layer(Layer::Kind::line, g, c.groups[g].name);
    band.x = line.x = d.x;
    band.low = d.low;
    band.high = d.high;
    line.y = d.y;
    line.end_label =
        c.groups.size() == 2 ? fmt::format("{} \u2212 {}", c.groups[g].name, c.groups[0].name) : c.groups[g].name;
    line.solid = c.groups.size() == 2;
    end = std::max(end, d.x.back());
    if (std::isfinite(d.low[0])) chart.layers.push_back(std::move(band));
    chart.layers.push_back(std::move(line));

    Layer marks = layer(Layer::Kind::marks, g, c.groups[g].name);
    const auto pairs = pairs_by_seed(c.groups[0], c.groups[g]);
    for (const ValPoint& val : pairs[0].first->vals) {
      std::vector<double> a, b;
      for (const auto& [left, right] : pairs) {
        for (const auto& [run, values] : {std::pair{left, &a}, {right, &b}}) {
          const auto it =
              std::find_if(run->vals.begin(), run->vals.end(), [&](const ValPoint& v) { return v.step == val.step; });
          values->push_back(it == run->vals.end() ? kMissing : it->value);
        }
      }
      const PairedDifference p = paired_difference(a, b);
      if (p.pairs < static_cast<int>(pairs.size())) continue;
      marks.x.push_back(val.step);
      marks.y.push_back(p.mean);
      marks.low.push_back(p.low);
      marks.high.push_back(p.high);
    }
    if (!marks.x.empty()) chart.layers.push_back(chosen(marks, c.groups.size() > 12 ? 5 : 30));
  }
  set_x_range(chart);
  double low = 0, high = 0;
  if (!y_range(chart, true, chart.x.min + 0.05 * (end - chart.x.min), low, high) &&
      !y_range(chart, true, -INFINITY, low, high)) {
    chart.layers.clear();
    return chart;
  }
  set_y_range(chart, std::min(low, 0.0), std::max(high, 0.0));
  return chart;
}

Chart norm_chart(const Comparison& c) {
  Chart chart = chart_of("norm", "Gradient norm", XAxis::step, {"gradient norm before clipping", Unit::plain});
  chart.y.log = true;
  for (std::size_t g = 0; g < c.groups.size(); ++g) {
    Layer rug = layer(Layer::Kind::rug, g, c.groups[g].name);
    bool any = false;
    for (const History* run : c.groups[g].runs) {
      for (const Bucket& bucket : run->buckets) {
        any = any || std::isfinite(bucket.norm);
        if (bucket.skipped > 0) rug.x.push_back(bucket.step);
      }
      chart.layers.push_back(raw_layer(*run, g, XAxis::step, &Bucket::norm, &Bucket::norm_min, &Bucket::norm_max));
    }
    if (any) add_mean(chart, c.groups[g], g, XAxis::step, &History::smooth_norm);
    if (!rug.x.empty()) chart.layers.push_back(std::move(rug));
  }
  set_x_range(chart);
  double low = INFINITY, high = 0;
  for (const Layer& l : chart.layers) {
    for (const double y : l.y) {
      if (!(y > 0) || !std::isfinite(y)) continue;
      low = std::min(low, y);
      high = std::max(high, y);
    }
  }
  if (low > high) chart.layers.clear();
  chart.y.min = low * 0.9;
  chart.y.max = high * 1.1;
  return chart;
}

Chart lr_chart(const Comparison& c) {
  Chart chart = chart_of("lr", "Learning rate", XAxis::step, {"learning rate", Unit::plain});
  for (std::size_t g = 0; g < c.groups.size(); ++g) {
    Layer line = layer(Layer::Kind::line, g, c.groups[g].name);
    for (const Bucket& bucket : c.groups[g].shown()[0]->buckets) {
      if (!std::isfinite(bucket.lr)) continue;
      line.x.push_back(bucket.step);
      line.y.push_back(bucket.lr);
    }
    line.end_label = c.groups[g].name;
    if (!line.x.empty()) chart.layers.push_back(std::move(line));
  }
  set_x_range(chart);
  double low = 0, high = 0;
  if (y_range(chart, true, -INFINITY, low, high)) {
    chart.y.min = 0;
    chart.y.max = high > 0 ? high * 1.05 : 1;
  }
  return chart;
}

}  // namespace nsa::report
