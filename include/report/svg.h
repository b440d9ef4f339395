// A chart as SVG: axes, lines, bands, points, and the names of the curves at their ends. Works as part of a page and as
// a file of its own: colours are attributes (light), the style sheet only replaces them in dark mode.
#pragma once

#include <string>
#include <vector>

#include "report/format.h"

namespace nsa::report {

struct Axis {
  std::string label;
  Unit unit = Unit::count;
  double min = 0, max = 1;
  bool log = false;
};

/// What is drawn. Points that are not finite break a line.
struct Layer {
  enum class Kind {
    band,       ///< low..high over x
    raw,        ///< faint line
    thin,       ///< thin line
    line,       ///< the curve itself
    marks,      ///< points, with a bar from low to high when given
    off_scale,  ///< arrow heads at the upper edge: a value beyond it
    rug,        ///< strokes on the x axis
  };
  Kind kind = Kind::line;
  int style = 0;     ///< colour and dash; the group's index
  std::string name;  ///< of the curve, for the reader's program and the hover
  std::vector<double> x, y, low, high;
  std::string end_label;  ///< beside the curve's end; "" for none
  std::string colour;     ///< "" for the palette's
  bool solid = false;     ///< no dash pattern: the only curve of its chart
  /// What its end says: nothing, an open circle (the run is still going), a cross (it diverged).
  enum class End { plain, running, diverged };
  End end = End::plain;
};

struct Chart {
  std::string id, title;
  Axis x, y;
  std::vector<Layer> layers;
  bool zero_line = false;
  std::string caption;  ///< a sentence below a small figure; "" for none
};

struct Size {
  int width, height;
};

/// A <g> drawing the chart in a box of `size` at (0, 0); its data-* attributes say how pixels map to values.
/// `points`: most points of one curve (spikes are kept: each pixel column shows its least and greatest value).
std::string draw_chart(const Chart& chart, Size size, int points);
/// A whole <svg> element. `klass` is its class.
std::string svg_element(const std::string& content, Size size, const std::string& klass, const std::string& label);

}  // namespace nsa::report
