// The charts of a report, from runs and their comparison. A chart that has no data has no layers.
#pragma once

#include "report/comparison.h"
#include "report/svg.h"

namespace nsa::report {

/// Loss against step, tokens or wall-clock: raw, smoothed mean over seeds, range over seeds, validation points. `only`:
/// of this group alone, whose losses may then be in a unit of their own.
Chart loss_chart(const Comparison& comparison, XAxis axis, const Group* only = nullptr);
/// Nothing when losses cannot be compared. Smoothed loss of each group minus that of the first, with its 95 % interval,
/// and the same of the validation points.
Chart difference_chart(const Comparison& comparison);
/// Gradient norm (logarithmic), with skipped steps as strokes on the axis.
Chart norm_chart(const Comparison& comparison);
Chart lr_chart(const Comparison& comparison);
/// One chart per NSA branch (cmp, slc, win) of a group: mean gate of each layer, mean over seeds. Empty when the group
/// has no gates.
std::vector<Chart> gate_charts(const Group& group, int index);
/// Of each layer of a group, mean over seeds: entropy of the compression attention; what share of it the selected
/// blocks hold (thin: by chance). No layers when the runs do not say.
Chart entropy_chart(const Group& group, int index);
Chart coverage_chart(const Group& group, int index);
/// One chart per NSA branch: its share of the gated output in each layer, logarithmic. Empty when the runs do not say.
std::vector<Chart> share_charts(const Group& group, int index);

}  // namespace nsa::report
