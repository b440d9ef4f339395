// Is this loss (or gradient norm) unlike the ones before it? A z-score against a rolling window, as llm.c's outlier
// detector.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

namespace nsa {

class OutlierWindow {
 public:
  /// Below so many values (or a full window, if smaller) there is no z-score.
  static constexpr std::size_t kFewest = 16;

  /// `capacity` = train.outlier_window; `values` (oldest first) come from a checkpoint; of too many the newest are
  /// kept.
  explicit OutlierWindow(std::int64_t capacity, std::vector<double> values = {});

  /// (value - mean) / standard deviation of the window, which does not hold `value` yet. Absent in the first steps, for
  /// a value that is not finite and for a window without spread.
  std::optional<double> z(double value) const;
  /// z(value), then the value enters the window (not a number or infinite: it does not).
  std::optional<double> observe(double value);
  /// The whole state, oldest first (TrainState::recent_losses, recent_norms).
  const std::vector<double>& values() const { return values_; }

 private:
  std::size_t capacity_;
  std::vector<double> values_;
};

}  // namespace nsa
