// The statistics of a comparison: Student t, the paired difference over seeds, means, and the smoothing of curves. Pure
// functions of numbers.
#pragma once

#include <span>
#include <string>
#include <vector>

namespace nsa::report {

/// Regularised incomplete beta function I_x(a, b), a > 0, b > 0, x in [0, 1] (continued fraction, Numerical
/// Recipes 6.4).
double incomplete_beta(double a, double b, double x);
/// P(T <= t) for Student's t with `df` > 0 degrees of freedom.
double student_t_cdf(double t, double df);
/// The t with P(T <= t) = p, p in (0, 1).
double student_t_quantile(double p, double df);

/// Mean and sample standard deviation of the finite values. n = 0: both NaN; n = 1: the deviation is NaN, not 0 (one
/// value says nothing about noise).
struct MeanSpread {
  int n = 0;
  double mean, deviation;
};
MeanSpread mean_spread(std::span<const double> values);

/// Mean of b[i] - a[i] over pairs (one pair per seed) with a two-sided t interval. Pairs with a value that is not
/// finite are left out.
struct PairedDifference {
  int pairs = 0;
  double mean, std_error;  ///< NaN without pairs; std_error also with one
  double low, high;        ///< the interval; NaN with fewer than two pairs
  double base;             ///< mean of a over the same pairs: what a relative difference refers to

  bool noise_known() const { return pairs >= 2; }
  /// Exactly when the interval contains 0. False when the noise is unknown.
  bool within_noise() const { return noise_known() && low <= 0 && 0 <= high; }
  /// "within noise", "lower", "higher", or "noise unknown".
  std::string verdict() const;
};
PairedDifference paired_difference(std::span<const double> a, std::span<const double> b, double confidence = 0.95);

/// Bias-corrected exponential moving average of values at positions (steps, ascending): m = keep m + (1 - keep) x with
/// keep = 2^(-gap / half_life), the same for the weight, and m / weight is returned. The gap to the first position
/// is 1. A value that is not finite is passed over: its place shows the average so far (NaN when there is none).
/// half_life 0: the values themselves.
std::vector<double> ema(std::span<const double> positions, std::span<const double> values, double half_life);

}  // namespace nsa::report
