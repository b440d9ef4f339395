#include "core/rng.h"

#include <algorithm>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/rng.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include <hwy/contrib/math/math-inl.h>

HWY_BEFORE_NAMESPACE();
namespace nsa {
namespace HWY_NAMESPACE {
namespace {
namespace hn = hwy::HWY_NAMESPACE;

constexpr std::int64_t kChunk = 256;  // a whole number of vectors: which elements share one does not change their bits

// Rng::normal() of a vector of indices at a time; logarithm and cosine may differ from libm's by a few units in the
// last place of a double.
void fill_normal(const Rng& rng, double std, std::int64_t first, std::int64_t last, float* out) {
  const hn::ScalableTag<double> d;
  const hn::Rebind<float, decltype(d)> df;
  const std::int64_t lanes = static_cast<std::int64_t>(hn::Lanes(d));
  const auto scale = hn::Set(d, std), minus_two = hn::Set(d, -2.0), two_pi = hn::Set(d, 6.283185307179586476925);
  HWY_ALIGN double u[kChunk], v[kChunk];
  HWY_ALIGN float result[kChunk];
  for (std::int64_t i = first; i < last; i += kChunk) {
    for (std::int64_t j = 0; j < kChunk; ++j) {
      const auto index = static_cast<std::uint64_t>(i + j);
      u[j] = 1.0 - rng.uniform(2 * index);
      v[j] = rng.uniform(2 * index + 1);
    }
    for (std::int64_t j = 0; j < kChunk; j += lanes) {
      const auto radius = hn::Sqrt(hn::Mul(minus_two, hn::Log(d, hn::Load(d, u + j))));
      const auto x = hn::Mul(radius, hn::Cos(d, hn::Mul(two_pi, hn::Load(d, v + j))));
      hn::Store(hn::DemoteTo(df, hn::Mul(scale, x)), df, result + j);
    }
    std::copy_n(result, std::min(kChunk, last - i), out + (i - first));
  }
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace nsa
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace nsa {
HWY_EXPORT(fill_normal);

void fill_normal(const Rng& rng, double std, std::int64_t first, std::int64_t last, float* out) {
  HWY_DYNAMIC_DISPATCH(fill_normal)(rng, std, first, last, out);
}

}  // namespace nsa
#endif
