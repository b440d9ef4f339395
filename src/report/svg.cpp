#include "report/svg.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <iterator>

#include "report/palette.h"

namespace nsa::report {
namespace {

constexpr double kCharWidth = 6.7;  // widest common sans-serif at 12 px, average over digits and lower case
constexpr double kNameWidth = 7.8;  // the same of the bold names at the ends of curves
constexpr double kLabelHeight = 14;

struct Pixel {
  double x, y;
};

/// One decimal, no needless ".0".
void append(std::string& out, double v) {
  const auto tenths = static_cast<long long>(std::llround(v * 10));
  fmt::format_to(std::back_inserter(out), "{}{}", tenths < 0 ? "-" : "", std::llabs(tenths) / 10);
  if (tenths % 10) fmt::format_to(std::back_inserter(out), ".{}", std::llabs(tenths) % 10);
}

/// The plot area inside a chart's box, and how values become pixels.
struct Frame {
  const Chart& chart;
  double left, top, width, height;

  static double place(const Axis& axis, double v) {
    return axis.log ? std::log(v / axis.min) / std::log(axis.max / axis.min) : (v - axis.min) / (axis.max - axis.min);
  }
  double px(double x) const { return left + width * place(chart.x, x); }
  double py(double y) const { return top + height * (1 - place(chart.y, y)); }
  bool drawable(double x, double y) const {
    return std::isfinite(x) && std::isfinite(y) && !(chart.x.log && x <= 0) && !(chart.y.log && y <= 0);
  }
};

/// Line pieces in pixels. Where several points share a pixel column the first, least, greatest and last of them stand
/// for all.
std::vector<std::vector<Pixel>> to_pixels(const Frame& f, const std::vector<double>& x, const std::vector<double>& y,
                                          int points) {
  const double column_width = std::max(1.0, f.width * 4 / std::max(8, points));
  std::vector<std::vector<Pixel>> pieces;
  bool broken = true;
  std::array<Pixel, 4> box{};  // first, least, greatest, last of the open column
  int in_box = 0;
  double column = 0;
  const auto close = [&] {
    if (in_box == 0) return;
    auto& piece = pieces.back();
    const bool least_first = box[1].x <= box[2].x;
    for (const Pixel& p : {box[0], least_first ? box[1] : box[2], least_first ? box[2] : box[1], box[3]}) {
      if (piece.empty() || std::fabs(piece.back().x - p.x) > 0.04 || std::fabs(piece.back().y - p.y) > 0.04)
        piece.push_back(p);
    }
    in_box = 0;
  };
  for (std::size_t i = 0; i < x.size(); ++i) {
    if (!f.drawable(x[i], y[i])) {
      close();
      broken = true;
      continue;
    }
    const Pixel p{f.px(x[i]), std::clamp(f.py(y[i]), f.top - 2000, f.top + f.height + 2000)};
    const double c = std::floor((p.x - f.left) / column_width);
    if (broken || c != column) close();
    if (broken) pieces.emplace_back();
    broken = false;
    column = c;
    if (in_box++ == 0) box = {p, p, p, p};
    if (p.y > box[1].y) box[1] = p;
    if (p.y < box[2].y) box[2] = p;
    box[3] = p;
  }
  close();
  return pieces;
}

std::string path_of(const std::vector<std::vector<Pixel>>& pieces) {
  std::string d;
  for (const auto& piece : pieces) {
    if (piece.empty()) continue;
    char before = 'M';
    for (const Pixel& p : piece) {
      d += before;
      append(d, p.x);
      d += ' ';
      append(d, p.y);
      before = 'L';
    }
    if (piece.size() == 1) d += "h.01";  // a lone point: round caps make it a dot
  }
  return d;
}

std::string band_path(const Frame& f, const Layer& layer) {
  std::string d;
  for (std::size_t i = 0; i < layer.x.size();) {
    while (i < layer.x.size() && !(f.drawable(layer.x[i], layer.low[i]) && f.drawable(layer.x[i], layer.high[i]))) ++i;
    std::size_t end = i;
    while (end < layer.x.size() && f.drawable(layer.x[end], layer.low[end]) &&
           f.drawable(layer.x[end], layer.high[end]))
      ++end;
    if (end == i) break;
    const auto point = [&](char before, double x, double y) {
      d += before;
      append(d, f.px(x));
      d += ' ';
      append(d, std::clamp(f.py(y), f.top - 2000, f.top + f.height + 2000));
    };
    for (std::size_t k = i; k < end; ++k) point(k == i ? 'M' : 'L', layer.x[k], layer.high[k]);
    for (std::size_t k = end; k-- > i;) point('L', layer.x[k], layer.low[k]);
    d += 'Z';
    i = end;
  }
  return d;
}

std::string colour_of(const Layer& layer) { return layer.colour.empty() ? palette_colour(layer.style) : layer.colour; }

/// class, group number and colour of a layer's element.
std::string dress(const Layer& layer, const char* klass, bool filled) {
  const std::string k = layer.colour.empty() ? fmt::format(" {}{}", filled ? "f" : "k", layer.style % kPaletteSize)
                                             : std::string(" layer");
  return fmt::format("class=\"{}{}\" data-g=\"{}\" {}=\"{}\"", klass, k, layer.style, filled ? "fill" : "stroke",
                     colour_of(layer));
}

std::string mark_path(int style, double x, double y) {
  constexpr std::array<const char*, 4> kShapes{"m-3.2 0a3.2 3.2 0 1 0 6.4 0a3.2 3.2 0 1 0-6.4 0",
                                               "m-2.9-2.9h5.8v5.8h-5.8z", "m0-3.8l3.8 6.4h-7.6z",
                                               "m0-4l4 4l-4 4l-4-4z"};
  std::string d = "M";
  append(d, x);
  d += ' ';
  append(d, y);
  return d + kShapes[static_cast<std::size_t>(style) % kShapes.size()];
}

std::string draw_marks(const Frame& f, const Layer& layer) {
  std::string shapes, bars;
  for (std::size_t i = 0; i < layer.x.size(); ++i) {
    if (!f.drawable(layer.x[i], layer.y[i])) continue;
    const double x = f.px(layer.x[i]), y = f.py(layer.y[i]);
    if (y < f.top - 1 || y > f.top + f.height + 1) continue;
    shapes += mark_path(layer.style, x, y);
    if (i < layer.low.size() && f.drawable(layer.x[i], layer.low[i]) && f.drawable(layer.x[i], layer.high[i])) {
      bars += fmt::format("M{:.1f} {:.1f}V{:.1f}", x, f.py(layer.low[i]), f.py(layer.high[i]));
    }
  }
  std::string out;
  if (!bars.empty())
    out += fmt::format("<path {} d=\"{}\" fill=\"none\" stroke-width=\"1\"/>", dress(layer, "bar", false), bars);
  return out + fmt::format("<path {} data-name=\"{}\" d=\"{}\" fill=\"#fff\" stroke-width=\"1.4\"/>",
                           dress(layer, "marks", false), escape_html(layer.name), shapes);
}

/// The last point a curve has inside the plot.
bool end_of(const Frame& f, const Layer& layer, Pixel& end) {
  for (std::size_t i = layer.x.size(); i-- > 0;) {
    if (!f.drawable(layer.x[i], layer.y[i])) continue;
    end = {f.px(layer.x[i]), std::clamp(f.py(layer.y[i]), f.top, f.top + f.height)};
    return true;
  }
  return false;
}

/// `faint`: opacity of raw lines; `halo`: a rim in the colour of the paper lifts the curve above the raw lines.
std::string draw_layer(const Frame& f, const Layer& layer, int points, double faint, bool halo) {
  switch (layer.kind) {
    case Layer::Kind::band:
      return fmt::format("<path {} d=\"{}\" fill-opacity=\".18\"/>", dress(layer, "band", true), band_path(f, layer));
    case Layer::Kind::marks: return draw_marks(f, layer);
    case Layer::Kind::off_scale: {
      std::string d;
      for (const double x : layer.x) d += fmt::format("M{:.1f} {:.1f}l3.5 6h-7z", f.px(x), f.top + 0.5);
      return fmt::format("<path {} d=\"{}\"><title>beyond the upper edge</title></path>", dress(layer, "off", true), d);
    }
    case Layer::Kind::rug: {
      std::string d;
      for (const double x : layer.x) d += fmt::format("M{:.1f} {:.1f}v-8", f.px(x), f.top + f.height);
      return fmt::format("<path {} d=\"{}\" fill=\"none\" stroke-width=\"1.5\"><title>skipped steps</title></path>",
                         dress(layer, "rug", false), d);
    }
    default: break;
  }
  const bool raw = layer.kind == Layer::Kind::raw, thin = layer.kind == Layer::Kind::thin;
  const char* const klass = raw ? "raw" : thin ? "thin" : "line";
  const std::string dash = raw || layer.solid ? "" : palette_dash(layer.style);
  const std::string d = path_of(to_pixels(f, layer.x, layer.y, points));
  std::string out;
  if (halo && !raw && !thin)
    out = fmt::format(
        "<path class=\"halo\" data-g=\"{}\" d=\"{}\" fill=\"none\" stroke=\"#fff\" stroke-width=\"4.5\" "
        "stroke-opacity=\".75\"/>",
        layer.style, d);
  out += fmt::format(
      "<path {} data-name=\"{}\" d=\"{}\" fill=\"none\" stroke-width=\"{}\" stroke-linejoin=\"round\" "
      "stroke-linecap=\"{}\"{}{}/>",
      dress(layer, klass, false), escape_html(layer.name), d,
      raw    ? "0.8"
      : thin ? "1"
             : "2",
      dash.empty() ? "round" : "butt", dash.empty() ? "" : fmt::format(" stroke-dasharray=\"{}\"", dash),
      raw ? fmt::format(" stroke-opacity=\"{:.2f}\"", faint) : "");
  return out;
}

/// What the end of a curve says, above all curves.
std::string draw_end(const Frame& f, const Layer& layer) {
  Pixel end{};
  if (layer.end == Layer::End::plain || !end_of(f, layer, end)) return {};
  if (layer.end == Layer::End::running)
    return fmt::format(
        "<circle {} cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"4\" fill=\"#fff\" stroke-width=\"1.5\"><title>still "
        "running</title></circle>",
        dress(layer, "grows", false), end.x, end.y);
  return fmt::format(
      "<path {} d=\"M{:.1f} {:.1f}m-4.5-4.5l9 9m0-9l-9 9\" fill=\"none\" "
      "stroke-width=\"2\"><title>diverged</title></path>",
      dress(layer, "broke", false), end.x, end.y);
}

/// What the name of a curve is followed by, and in a narrow chart.
struct EndWords {
  const char *whole, *brief;
};
EndWords words_of(Layer::End end) {
  switch (end) {
    case Layer::End::running: return {" (running)", " \u2192"};
    case Layer::End::diverged: return {" (diverged)", " \u00D7"};
    case Layer::End::plain: break;
  }
  return {"", ""};
}

struct EndLabel {
  const Layer* layer;
  std::string text;
  Pixel end;     // of the curve
  double y = 0;  // of the text's middle
};

/// Moves labels apart: neighbours that overlap become one block around the mean of their wishes, until no two overlap.
void spread(std::vector<EndLabel>& labels, double top, double bottom) {
  std::sort(labels.begin(), labels.end(), [](const EndLabel& a, const EndLabel& b) { return a.end.y < b.end.y; });
  struct Block {
    std::size_t first, count;
    double wish;  // sum of the members' wished tops of the block
    double y(double lo, double hi) const {
      return std::clamp(wish / static_cast<double>(count), lo,
                        std::max(lo, hi - kLabelHeight * static_cast<double>(count)));
    }
  };
  std::vector<Block> blocks;
  for (std::size_t i = 0; i < labels.size(); ++i) {
    blocks.push_back({i, 1, labels[i].end.y - kLabelHeight / 2});
    while (blocks.size() > 1) {
      Block& above = blocks[blocks.size() - 2];
      const Block& below = blocks.back();
      if (above.y(top, bottom) + kLabelHeight * static_cast<double>(above.count) <= below.y(top, bottom)) break;
      above.wish += below.wish - kLabelHeight * static_cast<double>(above.count * below.count);
      above.count += below.count;
      blocks.pop_back();
    }
  }
  for (const Block& block : blocks) {
    for (std::size_t k = 0; k < block.count; ++k)
      labels[block.first + k].y = block.y(top, bottom) + kLabelHeight * (static_cast<double>(k) + 0.5);
  }
}

std::string draw_labels(const Frame& f, int label_chars) {
  std::vector<EndLabel> labels;
  for (const Layer& layer : f.chart.layers) {
    const EndWords words = words_of(layer.end);
    std::string text = layer.end_label + words.whole;
    if (text_length(text) > label_chars)
      text = shorten(layer.end_label, label_chars - text_length(words.brief)) + words.brief;
    EndLabel label{&layer, text, {}, 0};
    if (!layer.end_label.empty() && end_of(f, layer, label.end)) labels.push_back(label);
  }
  // More names than fit: an even choice of them, always the first and the last.
  const auto room = static_cast<std::size_t>(std::max(1.0, std::floor(f.height / kLabelHeight)));
  if (labels.size() > room) {
    std::sort(labels.begin(), labels.end(), [](const EndLabel& a, const EndLabel& b) { return a.end.y < b.end.y; });
    for (std::size_t i = 0; i < room; ++i) labels[i] = labels[room == 1 ? 0 : i * (labels.size() - 1) / (room - 1)];
    labels.resize(room);
  }
  spread(labels, f.top - 2, f.top + f.height + 4);
  std::string out;
  const double right = f.left + f.width;
  for (const EndLabel& label : labels) {
    // Dotted where it crosses the plot, so that nobody takes it for data.
    out += fmt::format("<path {} d=\"M{:.1f} {:.1f}H{:.1f}L{:.1f} {:.1f}\" fill=\"none\" stroke-width=\"1\"{}/>",
                       dress(*label.layer, "lead", false), std::min(label.end.x + 6, right + 3), label.end.y,
                       std::max(right, label.end.x) + 3, right + 10, label.y,
                       label.end.x < right - 12 ? " stroke-dasharray=\"1 5\"" : "");
    const bool shortened = label.text != label.layer->end_label;
    out += fmt::format("<text class=\"name\" data-g=\"{}\" x=\"{:.1f}\" y=\"{:.1f}\">{}{}</text>", label.layer->style,
                       right + 13, label.y + 4, escape_html(label.text),
                       shortened ? "<title>" + escape_html(label.layer->end_label) + "</title>" : "");
  }
  return out;
}

std::string draw_axes(const Frame& f, const std::vector<Tick>& xs, const std::vector<Tick>& ys) {
  const double bottom = f.top + f.height, right = f.left + f.width;
  std::string out, grid;
  for (const Tick& tick : ys) {
    const double y = f.py(tick.value);
    grid += fmt::format("M{:.1f} {:.1f}H{:.1f}", f.left, y, right);
    out += fmt::format("<text class=\"tick\" x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"end\">{}</text>", f.left - 6,
                       y + 4, tick.text);
  }
  double free_from = -1e9;  // a tick whose text would touch its left neighbour's has none
  std::string marks;
  for (const Tick& tick : xs) {
    const double x = f.px(tick.value), half = kCharWidth * text_length(tick.text) / 2;
    marks += fmt::format("M{:.1f} {:.1f}v5", x, bottom);
    if (x - half < free_from) continue;
    free_from = x + half + 6;
    out += fmt::format("<text class=\"tick\" x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"middle\">{}</text>", x,
                       bottom + 18, tick.text);
  }
  out = fmt::format(
            "<path class=\"grid\" d=\"{}\" stroke=\"#ddd\"/><path class=\"axis\" d=\"M{:.1f} {:.1f}H{:.1f}{}\" "
            "stroke=\"#777\" fill=\"none\"/>",
            grid, f.left, bottom, right, marks) +
        out;
  if (f.chart.zero_line)
    out += fmt::format("<path class=\"zero\" d=\"M{:.1f} {:.1f}H{:.1f}\" stroke=\"#555\"/>", f.left, f.py(0), right);
  out +=
      fmt::format("<text class=\"unit\" x=\"{}\" y=\"{:.1f}\">{}</text>", 0, f.top - 10, escape_html(f.chart.y.label));
  return out + fmt::format("<text class=\"unit\" x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"end\">{}</text>", right,
                           bottom + 34, escape_html(f.chart.x.label));
}

}  // namespace

std::string draw_chart(const Chart& chart, Size size, int points) {
  const std::vector<Tick> ys = chart.y.log ? log_ticks(chart.y.min, chart.y.max, size.height / 50)
                                           : nice_ticks(chart.y.min, chart.y.max, size.height / 50, chart.y.unit);
  int tick_chars = 1, name_chars = 0;
  for (const Tick& tick : ys) tick_chars = std::max(tick_chars, text_length(tick.text));
  for (const Layer& layer : chart.layers) {
    if (!layer.end_label.empty())
      name_chars = std::max(name_chars, text_length(layer.end_label + words_of(layer.end).whole));
  }
  const int label_chars = std::min(name_chars, static_cast<int>(size.width * 0.27 / kNameWidth));
  const double left = kCharWidth * tick_chars + 8, right = name_chars ? 15 + kNameWidth * label_chars : 14;
  const Frame f{chart, left, 26, size.width - left - right, size.height - 26.0 - 40};
  const std::vector<Tick> xs =
      nice_ticks(chart.x.min, chart.x.max, std::max(2, static_cast<int>(f.width / 75)), chart.x.unit);

  const auto scale = [](const Axis& a) {
    return fmt::format("{:.9g},{:.9g},{}", a.min, a.max, a.log ? "log" : "linear");
  };
  std::string out = fmt::format(
      "<g class=\"chart\" data-id=\"{}\" data-plot=\"{:.1f},{:.1f},{:.1f},{:.1f}\" data-x=\"{}\" data-y=\"{}\" "
      "data-x-name=\"{}\">",
      chart.id, f.left, f.top, f.width, f.height, scale(chart.x), scale(chart.y), escape_html(chart.x.label));
  out += draw_axes(f, xs, ys);
  const std::string clip = fmt::format("{}-{}", chart.id, size.width);
  out += fmt::format(
      "<clipPath id=\"{}\"><rect x=\"{:.1f}\" y=\"{:.1f}\" width=\"{:.1f}\" height=\"{:.1f}\"/></clipPath><g "
      "clip-path=\"url(#{})\">",
      clip, f.left - 5, f.top - 1, f.width + 10, f.height + 6, clip);
  const auto count = [&](Layer::Kind kind) {
    return std::count_if(chart.layers.begin(), chart.layers.end(), [&](const Layer& l) { return l.kind == kind; });
  };
  const auto raws = count(Layer::Kind::raw);
  const double faint = std::clamp(0.5 / std::sqrt(static_cast<double>(std::max<std::ptrdiff_t>(1, raws))), 0.08, 0.35);
  const bool halo = raws > 0 && count(Layer::Kind::line) <= 6;
  for (const Layer::Kind kind : {Layer::Kind::band, Layer::Kind::raw, Layer::Kind::thin, Layer::Kind::rug,
                                 Layer::Kind::line, Layer::Kind::marks, Layer::Kind::off_scale}) {
    for (const Layer& layer : chart.layers) {
      if (layer.kind == kind) out += draw_layer(f, layer, points, faint, halo);
    }
  }
  for (const Layer& layer : chart.layers) out += draw_end(f, layer);
  return out + "</g>" + draw_labels(f, label_chars) + "</g>";
}

std::string svg_element(const std::string& content, Size size, const std::string& klass, const std::string& label) {
  return fmt::format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"{0}\" viewBox=\"0 0 {1} {2}\" width=\"{1}\" height=\"{2}\" "
      "role=\"img\" aria-label=\"{3}\">{4}</svg>",
      klass, size.width, size.height, escape_html(label), content);
}

}  // namespace nsa::report
