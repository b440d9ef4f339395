// What all charts are put together from.
#pragma once

#include <string>

#include "report/series.h"
#include "report/svg.h"

namespace nsa::report {

Chart chart_of(const std::string& id, const std::string& title, XAxis axis, const Axis& y);
/// Without points.
Layer layer(Layer::Kind kind, std::size_t style, const std::string& name);
/// From the finite x of the layers; takes the layers away when there is none.
void set_x_range(Chart& chart);

}  // namespace nsa::report
