// The numbers of a report: one row per quantity, one column per group, differences from the first group paired by seed,
// and what a reader has to know about them.
#pragma once

#include <string>
#include <vector>

#include "report/format.h"
#include "report/measure.h"
#include "report/series.h"

namespace nsa::report {

struct Row {
  enum class Kind {
    loss,      ///< of the compared runs
    apart,     ///< likewise, but in units or at steps of their own: nothing to subtract
    measured,  ///< another quantity with noise
    exact,     ///< a property of the configuration: its differences have no noise
  };
  std::string label;
  Unit unit;
  double step;  ///< at which it was taken; NaN: over the whole run
  Kind kind;
  std::vector<MeanSpread> groups;             ///< over the seeds
  std::vector<PairedDifference> differences;  ///< [g] = group g minus group 0; [0] is empty
};

struct ConfigDifference {
  std::string path;
  std::vector<std::string> values;  ///< one per group; "" when its config has no such field
};

struct Comparison {
  std::vector<Group> groups;
  std::vector<Row> rows;  ///< what decides comes first: the first of Kind::loss in which both groups have a value
  std::vector<ConfigDifference> config;
  std::vector<std::string>
      notes;  ///< sentences: runs of different length, still running, lines that could not be read, ...
  double compared_step =
      kMissing;          ///< the step of the last validation all compared runs have, else of the end of the shortest
  double half_life = 0;  ///< of the EMA, steps
  Measure measure = Measure::nats_per_token;
};

/// `runs` must outlive the result, be expressed in `measure` and smoothed.
Comparison compare_runs(const std::vector<History>& runs, double half_life, Measure measure);

/// "nsa − full: validation loss −0.0140 ± 0.0046 (95 % interval −0.0339 to 0.0059, 3 seeds), within noise": one
/// sentence per group but the first.
std::vector<std::string> verdicts(const Comparison& comparison);

/// The final table as text: a line of titles, then one line per row; with more than four groups one line per
/// group, its difference in `small`, which stands under or after `text`.
struct Cell {
  std::string text, small;
  bool strong = false;  ///< a difference beyond noise
};
using CellTable = std::vector<std::vector<Cell>>;
/// Rows become columns.
CellTable turned(const CellTable& table);
CellTable final_table(const Comparison& comparison);

}  // namespace nsa::report
