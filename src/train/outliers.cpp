#include "train/outliers.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "core/check.h"

namespace nsa {

OutlierWindow::OutlierWindow(std::int64_t capacity, std::vector<double> values) : values_(std::move(values)) {
  NSA_CHECK(capacity >= 2, "outlier window: needs at least 2 steps, got {}", capacity);
  capacity_ = static_cast<std::size_t>(capacity);
  if (values_.size() > capacity_) values_.erase(values_.begin(), values_.end() - capacity);
}

std::optional<double> OutlierWindow::z(double value) const {
  if (!std::isfinite(value) || values_.size() < std::min(capacity_, kFewest)) return {};
  // From scratch and in order every time: running sums would differ in the last bits after a resume.
  const double n = static_cast<double>(values_.size());
  double mean = 0, squares = 0;
  for (double v : values_) mean += v;
  mean /= n;
  for (double v : values_) squares += (v - mean) * (v - mean);
  const double deviation = std::sqrt(squares / n);
  if (!(deviation > 0)) return {};
  return (value - mean) / deviation;
}

std::optional<double> OutlierWindow::observe(double value) {
  const std::optional<double> score = z(value);
  if (std::isfinite(value)) {
    if (values_.size() == capacity_) values_.erase(values_.begin());
    values_.push_back(value);
  }
  return score;
}

}  // namespace nsa
