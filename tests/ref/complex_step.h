// Proves the backward of a reference from its forward (DESIGN law 10): for an analytic f, Im f(x + ih) / h is the
// derivative of f at x with an error of h^2, so with h = 1e-100 it is exact to rounding: no step size to tune, no
// cancellation.
//
// A reference is templated on T and runs with T = double and T = std::complex<double>. Inside it every max, abs and
// comparison must look at the real part (real_part, max_real below): they choose a branch, they are not differentiated.
// Take constants as T(0.5), never conj() or std::abs().
//
//     const std::vector<double> dx = ...;                                        // the reference's backward, T =
//     double check_gradient("dx", dx, x, [&](const std::vector<Complex>& xc) { return weighted_sum(forward<Complex>(xc,
//     lift(w)), dy); });
#pragma once

#include <complex>
#include <string>
#include <vector>

#include "ref/compare.h"

namespace nsa::test {

using Complex = std::complex<double>;

inline double real_part(float x) { return x; }
inline double real_part(double x) { return x; }
inline double real_part(const Complex& x) { return x.real(); }
/// The argument with the larger real part.
template <class T>
T max_real(const T& a, const T& b) {
  return real_part(a) < real_part(b) ? b : a;
}

inline std::vector<Complex> lift(const std::vector<double>& x) { return {x.begin(), x.end()}; }

/// sum_i y_i dy_i: the scalar whose gradient by the inputs of y is backward(dy).
template <class T>
T weighted_sum(const std::vector<T>& y, const std::vector<double>& dy) {
  NSA_CHECK(y.size() == dy.size(), "test: {} outputs, {} output gradients", y.size(), dy.size());
  T sum(0);
  for (std::size_t i = 0; i < y.size(); ++i) sum += y[i] * T(dy[i]);
  return sum;
}

/// Gradient at x of a scalar function loss(const std::vector<Complex>&) -> Complex, one evaluation per coordinate.
template <class F>
std::vector<double> complex_step_gradient(const std::vector<double>& x, F&& loss) {
  constexpr double kStep = 1e-100;
  std::vector<Complex> z = lift(x);
  std::vector<double> gradient(x.size());
  for (std::size_t i = 0; i < x.size(); ++i) {
    z[i] = Complex(x[i], kStep);
    gradient[i] = loss(static_cast<const std::vector<Complex>&>(z)).imag() / kStep;
    z[i] = Complex(x[i], 0);
  }
  return gradient;
}

/// Fails when `gradient` (a reference's backward in double) is not the derivative of `loss` at x.
template <class F>
void check_gradient(const std::string& name, const std::vector<double>& gradient, const std::vector<double>& x,
                    F&& loss, double limit = 1e-12) {
  check_close("gradient " + name + " by complex step", gradient, complex_step_gradient(x, loss), limit);
}

}  // namespace nsa::test
