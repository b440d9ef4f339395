// Random numbers as a pure function of (seed, stream, index): no state to save, the same on every machine, any element
// can be drawn alone, and a tensor's initial values do not depend on which other tensors the model has.
#pragma once

#include <cmath>
#include <cstdint>
#include <string_view>

namespace nsa {

/// SplitMix64's finaliser: a bijection that mixes every input bit into every output bit.
constexpr std::uint64_t mix64(std::uint64_t x) {
  x += 0x9e3779b97f4a7c15ull;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
  return x ^ (x >> 31);
}

/// A stream name ("init model.norm.weight", "shuffle") as a number: FNV-1a.
constexpr std::uint64_t stream_id(std::string_view name) {
  std::uint64_t h = 0xcbf29ce484222325ull;
  for (char c : name) h = (h ^ static_cast<unsigned char>(c)) * 0x100000001b3ull;
  return h;
}

struct Rng {
  std::uint64_t key;
  Rng(std::uint64_t seed, std::string_view stream) : key(mix64(seed ^ mix64(stream_id(stream)))) {}
  std::uint64_t bits(std::uint64_t index) const { return mix64(key ^ mix64(index)); }
  /// uniform in [0, 1), 53 bits
  double uniform(std::uint64_t index) const { return static_cast<double>(bits(index) >> 11) * 0x1p-53; }
  /// standard normal (Box-Muller on two draws of the same index)
  double normal(std::uint64_t index) const {
    const double u = 1.0 - uniform(2 * index), v = uniform(2 * index + 1);  // u in (0, 1]
    return std::sqrt(-2.0 * std::log(u)) * std::cos(6.283185307179586476925 * v);
  }
};

/// out[i - first] = std * rng.normal(i) for i in [first, last), four times faster. Rounded to float, one in millions
/// may differ by its last bit.
void fill_normal(const Rng& rng, double std, std::int64_t first, std::int64_t last, float* out);

}  // namespace nsa
