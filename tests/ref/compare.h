// What tests compare with: relative RMS error, the worst coordinate by its multi-index, one tolerance per dtype (DESIGN
// law 10), tensors filled with random numbers, and a device with memory.
#pragma once

#include <algorithm>
#include <cmath>
#include <complex>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "catch.h"
#include "core/device.h"
#include "core/rng.h"

namespace nsa::test {

/// The tolerance table: largest relative RMS error of a kernel against the float64 reference.
constexpr double tolerance(DType type) { return type == DType::bf16 ? 1e-2 : type == DType::f32 ? 1e-5 : 0.0; }

/// A CPU device whose arenas have memory (untouched pages cost nothing). Tensors made below live in dev.params until
/// the device dies.
struct TestDevice : Device {
  explicit TestDevice(int n_threads = 1, std::size_t work_mib = 256, std::size_t params_mib = 256) {
    threads = n_threads;
    work.reserve(work_mib << 20);
    params.reserve(params_mib << 20);
  }
};

/// A tensor full of NaN (i32: of the lowest number), so that an element an op forgets to write is seen.
inline Tensor make(Device& dev, const Shape& dims, DType type = DType::f32) {
  Tensor t = dev.params.take(type, dims, Purpose::activations);
  if (dev.params.planning()) return t;
  if (type == DType::f32) std::fill_n(t.f32(), t.numel(), std::numeric_limits<float>::quiet_NaN());
  if (type == DType::i32) std::fill_n(t.i32(), t.numel(), std::numeric_limits<std::int32_t>::min());
  if (type == DType::bf16) std::memset(t.data, 0xff, t.bytes());
  return t;
}

/// Normal numbers times `scale` plus `mean`; a function of `name` alone, so that two calls with different names are
/// independent.
inline Tensor random(Device& dev, const Shape& dims, const std::string& name, double scale = 1, double mean = 0) {
  Tensor t = make(dev, dims);
  if (!t.data) return t;  // planning
  const Rng rng(1, name);
  for (std::int64_t i = 0; i < t.numel(); ++i)
    t.f32()[i] = static_cast<float>(mean + scale * rng.normal(static_cast<std::uint64_t>(i)));
  return t;
}

/// Integers uniform in [low, high).
inline Tensor random_ints(Device& dev, const Shape& dims, const std::string& name, std::int32_t low,
                          std::int32_t high) {
  Tensor t = make(dev, dims, DType::i32);
  if (!t.data) return t;
  const Rng rng(1, name);
  for (std::int64_t i = 0; i < t.numel(); ++i)
    t.i32()[i] = low + static_cast<std::int32_t>(rng.uniform(static_cast<std::uint64_t>(i)) * (high - low));
  return t;
}

/// A copy with the same dims and elements.
inline Tensor clone(Device& dev, In x) {
  Tensor t = make(dev, x.shape, x.dtype);
  if (t.data && x.numel()) std::memcpy(t.data, x.data, x.bytes());
  return t;
}

/// The elements of an f32 tensor as T: double or std::complex<double> for a reference, float.
template <class T = double>
std::vector<T> values(In x) {
  std::vector<T> v(static_cast<std::size_t>(x.numel()));
  for (std::size_t i = 0; i < v.size(); ++i) v[i] = static_cast<T>(x.f32()[i]);
  return v;
}
inline std::vector<std::int32_t> ints(In x) {
  return x.numel() ? std::vector<std::int32_t>(x.i32(), x.i32() + x.numel()) : std::vector<std::int32_t>();
}

template <class T>
void set(Out x, const std::vector<T>& v) {
  NSA_CHECK(static_cast<std::size_t>(x.numel()) == v.size(), "test: {} values for a tensor {}", v.size(),
            x.shape.str());
  for (std::size_t i = 0; i < v.size(); ++i) x.f32()[i] = static_cast<float>(v[i]);
}

/// The same bytes? (NaN equals the same NaN.)
inline bool same_bits(In a, In b) {
  return a.dtype == b.dtype && a.shape == b.shape && (a.numel() == 0 || std::memcmp(a.data, b.data, a.bytes()) == 0);
}

/// "[1, 0, 17]" of element `index` of a tensor with these dims.
inline std::string multi_index(const Shape& dims, std::int64_t index) {
  if (dims.numel() == 0) return "[nothing]";
  std::string s;
  for (int i = dims.rank() - 1; i >= 0; --i) {
    s = std::to_string(index % dims[i]) + (s.empty() ? "" : ", ") + s;
    index /= dims[i];
  }
  return "[" + s + "]";
}

struct Difference {
  double error = 0;        ///< |got - want| / |want| in the 2-norm (|got - want| itself when want is 0); infinite when
                           ///< finiteness differs
  std::int64_t worst = 0;  ///< element with the largest absolute difference
  double got = 0, want = 0;  ///< its values
};

template <class A, class B>
Difference difference(std::size_t n, const A& got_at, const B& want_at) {
  Difference d;
  double sum = 0, norm = 0, largest = -1;
  for (std::size_t i = 0; i < n; ++i) {
    const double got = got_at(i), want = want_at(i);
    const bool same = got == want || (std::isnan(got) && std::isnan(want));  // also +inf twice
    double gap = same ? 0 : std::fabs(got - want);
    if (!std::isfinite(gap)) gap = std::numeric_limits<double>::infinity();
    if (gap > largest) {
      largest = gap;
      d.worst = static_cast<std::int64_t>(i), d.got = got, d.want = want;
    }
    sum += gap * gap;
    if (std::isfinite(want)) norm += want * want;
  }
  d.error = norm > 0 ? std::sqrt(sum / norm) : std::sqrt(sum);
  return d;
}

template <class T>
Difference difference(In got, const std::vector<T>& want) {
  NSA_CHECK(static_cast<std::size_t>(got.numel()) == want.size(), "test: {} expected values, got {}", want.size(),
            got.shape.str());
  const float* g = got.f32();
  const auto got_at = [&](std::size_t i) { return static_cast<double>(g[i]); };
  return difference(want.size(), got_at, [&](std::size_t i) { return static_cast<double>(std::real(want[i])); });
}
template <class T, class U>
Difference difference(const std::vector<T>& got, const std::vector<U>& want) {
  NSA_CHECK(got.size() == want.size(), "test: {} values, {} expected", got.size(), want.size());
  const auto got_at = [&](std::size_t i) { return static_cast<double>(std::real(got[i])); };
  return difference(want.size(), got_at, [&](std::size_t i) { return static_cast<double>(std::real(want[i])); });
}

inline std::string describe(const std::string& name, const Shape& dims, const Difference& d, double limit) {
  return fmt::format("{} {}: relative RMS error {:.3g} (limit {:.3g}), worst at {}: got {:.9g}, want {:.9g}", name,
                     dims.str(), d.error, limit, multi_index(dims, d.worst), d.got, d.want);
}

/// check_close("dq", dq, want): fails with the error and the worst coordinate. `want` is a vector of double (or
/// complex: the real part) in the tensor's order.
template <class T>
void check_close(const std::string& name, In got, const std::vector<T>& want, double limit = tolerance(DType::f32)) {
  const Difference d = difference(got, want);
  INFO(describe(name, got.shape, d, limit));
  CHECK(d.error <= limit);
}
inline void check_close(const std::string& name, In got, In want, double limit = tolerance(DType::f32)) {
  check_close(name, got, values(want), limit);
}
template <class T, class U>
void check_close(const std::string& name, const std::vector<T>& got, const std::vector<U>& want, double limit) {
  const Difference d = difference(got, want);
  INFO(describe(name, Shape{static_cast<std::int64_t>(want.size())}, d, limit));
  CHECK(d.error <= limit);
}

}  // namespace nsa::test
