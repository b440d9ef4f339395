// What tests compare with: relative RMS error, the worst coordinate by its multi-index, one rule per dtype (DESIGN law
// 10), tensors filled with random numbers, and a device with memory. Everything here works for tensors of any place.
#pragma once

#include <algorithm>
#include <cmath>
#include <complex>
#include <limits>
#include <string>
#include <vector>

#include "catch.h"
#include "core/device.h"
#include "core/rng.h"
#include "core/transfer.h"
#include "device_under_test.h"

namespace nsa::test {

/// The tolerance table: largest relative RMS error of a kernel against the float64 reference. A bf16 kernel is held to
/// more: see check_close_to_plain().
constexpr double tolerance(DType type) { return type == DType::bf16 ? 1e-2 : type == DType::f32 ? 1e-5 : 0.0; }

/// Where an op's test runs and what it computes in: every op's test runs once for each of all_kinds().
struct Kind {
  Where where = Where::cpu;
  DType type = DType::f32;
};
inline std::vector<Kind> all_kinds() {
  return {{Where::cpu, DType::f32}, {Where::fake, DType::f32}, {Where::cpu, DType::bf16}};
}
inline Kind any_kind() { return GENERATE(from_range(all_kinds())); }
/// For what is f32 always.
inline Kind any_f32_kind() { return {GENERATE(Where::cpu, Where::fake), DType::f32}; }
inline std::string describe(const Kind& kind) {
  return fmt::format("{} on {}", name_of(kind.type), name_of(kind.where));
}

/// A device whose arenas have memory. Tensors made below live in dev.params until the device dies.
struct TestDevice : Device {
  explicit TestDevice(int n_threads = 1, std::size_t work_mib = 256, std::size_t params_mib = 256,
                      Where place = place_under_test()) {
    where = place;
    threads = n_threads;
    reserve(params_mib << 20, work_mib << 20);
  }
  explicit TestDevice(const Kind& kind, int n_threads = 1, std::size_t work_mib = 64, std::size_t params_mib = 64)
      : TestDevice(n_threads, work_mib, params_mib, kind.where) {}
};

/// A tensor full of NaN (i32: of the lowest number), so that an element an op forgets to write is seen.
inline Tensor make(Device& dev, const Shape& dims, DType type = DType::f32) {
  Tensor t = dev.params.take(type, dims, Purpose::activations);
  if (!t.data) return t;  // planning
  const auto n = static_cast<std::size_t>(t.numel());
  if (type == DType::f32) upload(t, std::vector<float>(n, std::numeric_limits<float>::quiet_NaN()).data());
  if (type == DType::i32) upload(t, std::vector<std::int32_t>(n, std::numeric_limits<std::int32_t>::min()).data());
  if (type == DType::bf16) upload(t, std::vector<bf16>(n, bf16(std::numeric_limits<float>::quiet_NaN())).data());
  return t;
}

/// Sets every element; a bf16 tensor holds the rounded numbers.
template <class T>
void set(Out x, const std::vector<T>& v) {
  NSA_CHECK(static_cast<std::size_t>(x.numel()) == v.size(), "test: {} values for a tensor {}", v.size(),
            x.shape.str());
  if (x.dtype == DType::f32) upload(x, std::vector<float>(v.begin(), v.end()).data());
  if (x.dtype == DType::i32) upload(x, std::vector<std::int32_t>(v.begin(), v.end()).data());
  if (x.dtype != DType::bf16) return;
  std::vector<bf16> rounded;
  for (const T& e : v) rounded.push_back(bf16(static_cast<float>(e)));
  upload(x, rounded.data());
}

/// Normal numbers times `scale` plus `mean`; a function of `name` alone, so that two calls with different names are
/// independent.
inline Tensor random(Device& dev, const Shape& dims, const std::string& name, double scale = 1, double mean = 0,
                     DType type = DType::f32) {
  Tensor t = make(dev, dims, type);
  if (!t.data) return t;  // planning
  const Rng rng(1, name);
  std::vector<float> v(static_cast<std::size_t>(t.numel()));
  for (std::size_t i = 0; i < v.size(); ++i) v[i] = static_cast<float>(mean + scale * rng.normal(i));
  set(t, v);
  return t;
}
inline Tensor random(Device& dev, const Shape& dims, const std::string& name, DType type) {
  return random(dev, dims, name, 1, 0, type);
}

/// Integers uniform in [low, high).
inline Tensor random_ints(Device& dev, const Shape& dims, const std::string& name, std::int32_t low,
                          std::int32_t high) {
  Tensor t = make(dev, dims, DType::i32);
  if (!t.data) return t;
  const Rng rng(1, name);
  std::vector<std::int32_t> v(static_cast<std::size_t>(t.numel()));
  for (std::size_t i = 0; i < v.size(); ++i) v[i] = low + static_cast<std::int32_t>(rng.uniform(i) * (high - low));
  set(t, v);
  return t;
}

/// The bytes, wherever they are.
inline std::vector<char> bytes_of(In x) {
  std::vector<char> v(x.bytes());
  download(v.data(), x);
  return v;
}

/// A copy with the same dims and elements.
inline Tensor clone(Device& dev, In x) {
  Tensor t = make(dev, x.shape, x.dtype);
  if (t.data && x.numel()) upload(t, bytes_of(x).data());
  return t;
}

/// The elements of an f32 or bf16 tensor as T: double or std::complex<double> for a reference, float.
template <class T = double>
std::vector<T> values(In x) {
  std::vector<T> v;
  if (x.dtype == DType::bf16) {
    for (bf16 e : downloaded<bf16>(x)) v.push_back(static_cast<T>(static_cast<float>(e)));
  } else {
    for (float e : downloaded<float>(x)) v.push_back(static_cast<T>(e));
  }
  return v;
}
inline std::vector<std::int32_t> ints(In x) { return downloaded<std::int32_t>(x); }

/// Sets one element.
inline void set_at(Out x, std::int64_t index, double value) {
  const auto i = static_cast<std::size_t>(index);
  if (x.dtype == DType::i32) {
    std::vector<std::int32_t> v = ints(x);
    v.at(i) = static_cast<std::int32_t>(value);
    return set(x, v);
  }
  std::vector<double> v = values(x);
  v.at(i) = value;
  set(x, v);
}
/// edit(x, [&](auto& v) { v[3] = 1; }): changes elements, wherever they are.
template <class F>
void edit(Out x, F&& f) {
  std::vector<float> v = values<float>(x);
  f(v);
  set(x, v);
}

/// What a plain bf16 program would have stored.
inline double rounded_to_bf16(double x) { return static_cast<float>(bf16(static_cast<float>(x))); }
inline std::vector<double> rounded_to_bf16(std::vector<double> v) {
  for (double& e : v) e = rounded_to_bf16(e);
  return v;
}

/// The same bytes? (NaN equals the same NaN.)
inline bool same_bits(In a, In b) { return a.dtype == b.dtype && a.shape == b.shape && bytes_of(a) == bytes_of(b); }

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
  const std::vector<double> g = values(got);
  const auto got_at = [&](std::size_t i) { return g[i]; };
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
/// The rule for every dtype: f32 within `limit` of `want`, the float64 result; bf16 at most twice as far from it as
/// `plain`, what a plain bf16 program would give: the same formula with every tensor it stores rounded to bf16.
inline void check_close_to_plain(const std::string& name, In got, const std::vector<double>& want,
                                 const std::vector<double>& plain, double limit = tolerance(DType::f32)) {
  if (got.dtype == DType::f32) return check_close(name, got, want, limit);
  check_close(name, got, want, 2 * difference(plain, want).error);
}
/// An op that rounds once, when it stores its result.
inline void check_rounded(const std::string& name, In got, const std::vector<double>& want) {
  check_close_to_plain(name, got, want, rounded_to_bf16(want));
}
template <class T, class U>
void check_close(const std::string& name, const std::vector<T>& got, const std::vector<U>& want, double limit) {
  const Difference d = difference(got, want);
  INFO(describe(name, Shape{static_cast<std::int64_t>(want.size())}, d, limit));
  CHECK(d.error <= limit);
}

}  // namespace nsa::test
