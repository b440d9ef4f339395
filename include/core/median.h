// The one median of the tree.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

namespace nsa {

/// Median of the finite values, of an even number the mean of the middle two; NaN when there are none.
inline double median(std::vector<double> values) {
  std::erase_if(values, [](double v) { return !std::isfinite(v); });
  if (values.empty()) return std::numeric_limits<double>::quiet_NaN();
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  if (values.size() % 2) return *middle;
  return (*middle + *std::max_element(values.begin(), middle)) / 2;
}

}  // namespace nsa
