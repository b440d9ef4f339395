#include "report/statistics.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/check.h"

namespace nsa::report {
namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

/// Lentz's method for the continued fraction of I_x(a, b); converges fast for x < (a + 1) / (a + b + 2).
double beta_fraction(double a, double b, double x) {
  constexpr double kTiny = 1e-300;
  double c = 1, d = 1 - (a + b) * x / (a + 1);
  if (std::fabs(d) < kTiny) d = kTiny;
  d = 1 / d;
  double h = d;
  for (int m = 1; m <= 10000; ++m) {
    const double even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m));
    const double odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1));
    double delta = 1;
    for (const double term : {even, odd}) {
      d = 1 + term * d;
      c = 1 + term / c;
      if (std::fabs(d) < kTiny) d = kTiny;
      if (std::fabs(c) < kTiny) c = kTiny;
      d = 1 / d;
      delta = d * c;
      h *= delta;
    }
    if (std::fabs(delta - 1) < 1e-15) break;
  }
  return h;
}

/// P(T > t) for t >= 0: small tails keep their relative precision, which 1 - cdf would lose.
double upper_tail(double t, double df) { return 0.5 * incomplete_beta(df / 2, 0.5, df / (df + t * t)); }

}  // namespace

double incomplete_beta(double a, double b, double x) {
  NSA_CHECK(a > 0 && b > 0 && x >= 0 && x <= 1,
            "incomplete_beta: needs a > 0, b > 0 and x in [0, 1], got a = {}, b = {}, x = {}", a, b, x);
  if (x == 0 || x == 1) return x;
  const double front =
      std::exp(std::lgamma(a + b) - std::lgamma(a) - std::lgamma(b) + a * std::log(x) + b * std::log1p(-x));
  if (x < (a + 1) / (a + b + 2)) return front * beta_fraction(a, b, x) / a;
  return 1 - front * beta_fraction(b, a, 1 - x) / b;
}

double student_t_cdf(double t, double df) { return t < 0 ? upper_tail(-t, df) : 1 - upper_tail(t, df); }

double student_t_quantile(double p, double df) {
  NSA_CHECK(p > 0 && p < 1 && df > 0, "student_t_quantile: needs p in (0, 1) and df > 0, got p = {}, df = {}", p, df);
  if (p < 0.5) return -student_t_quantile(1 - p, df);
  double low = 0, high = 1;
  while (upper_tail(high, df) > 1 - p) high *= 2;
  for (int i = 0; i < 200 && low < high; ++i) {
    const double middle = low + (high - low) / 2;
    if (middle == low || middle == high) break;
    (upper_tail(middle, df) > 1 - p ? low : high) = middle;
  }
  return low + (high - low) / 2;
}

MeanSpread mean_spread(std::span<const double> values) {
  MeanSpread r{0, 0, 0};
  for (double v : values) {
    if (!std::isfinite(v)) continue;
    ++r.n;
    r.mean += v;
  }
  if (r.n == 0) return {0, kNan, kNan};
  r.mean /= r.n;
  for (double v : values) {
    if (std::isfinite(v)) r.deviation += (v - r.mean) * (v - r.mean);
  }
  r.deviation = r.n > 1 ? std::sqrt(r.deviation / (r.n - 1)) : kNan;
  return r;
}

std::string PairedDifference::verdict() const {
  if (!noise_known()) return "noise unknown";
  if (within_noise()) return "within noise";
  return mean < 0 ? "lower" : "higher";
}

PairedDifference paired_difference(std::span<const double> a, std::span<const double> b, double confidence) {
  NSA_CHECK(a.size() == b.size(), "paired_difference: both sides need one value per seed, got {} and {}", a.size(),
            b.size());
  std::vector<double> d(a.size()), base(a.size());
  for (std::size_t i = 0; i < a.size(); ++i) {
    d[i] = b[i] - a[i];
    base[i] = std::isfinite(d[i]) ? a[i] : kNan;
  }
  const MeanSpread s = mean_spread(d);
  PairedDifference r{s.n, s.mean, s.deviation, kNan, kNan, mean_spread(base).mean};
  if (s.n < 2) return r;
  r.std_error = s.deviation / std::sqrt(static_cast<double>(s.n));
  const double reach = student_t_quantile(0.5 + confidence / 2, s.n - 1) * r.std_error;
  r.low = r.mean - reach;
  r.high = r.mean + reach;
  return r;
}

std::vector<double> ema(std::span<const double> positions, std::span<const double> values, double half_life) {
  NSA_CHECK(positions.size() == values.size(), "ema: one position per value, got {} and {}", positions.size(),
            values.size());
  std::vector<double> out(values.size(), kNan);
  double average = 0, weight = 0, last = positions.empty() ? 0 : positions[0] - 1;
  for (std::size_t i = 0; i < values.size(); ++i) {
    if (std::isfinite(values[i])) {
      const double keep = half_life > 0 ? std::exp2(-(positions[i] - last) / half_life) : 0;
      average = keep * average + (1 - keep) * values[i];
      weight = keep * weight + (1 - keep);
      last = positions[i];
    }
    if (weight > 0) out[i] = average / weight;
  }
  return out;
}

}  // namespace nsa::report
