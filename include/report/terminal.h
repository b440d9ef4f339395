// Reports for people without a browser: the final table, a plot in characters, and the view of a run that is followed.
#pragma once

#include <string>
#include <vector>

#include "report/comparison.h"

namespace nsa::report {

/// One line of a plot in characters.
struct TextCurve {
  std::string name;
  std::vector<double> x, y;
};
/// Curves in a grid of `columns` by `rows` characters with ticks; each curve has its own mark, named below. "" when
/// nothing can be drawn.
std::string plot_text(const std::vector<TextCurve>& curves, int columns, int rows);

/// Verdicts, table, plot of the smoothed losses, notes.
std::string report_text(const Comparison& comparison, int columns);

/// A run as `nsa watch` shows it: progress and ETA, curve, last steps, health. `age` is the time in seconds since its
/// file changed.
std::string watch_text(const Records& run, const std::string& name, double age, int columns);

}  // namespace nsa::report
