// Warp collectives: 32 lanes meet, the last one computes for all. None of them but __syncwarp orders memory.
#pragma once

#include <bit>
#include <cstdint>
#include <type_traits>

#include "cuda_on_cpu/fault.h"

namespace cuda_on_cpu {

using Leader = void (*)(void* const* arguments, std::uint32_t mask);
/// The current lane meets the others of `mask`; the last one calls leader(arguments by lane, mask). `aligned`: all must
/// come from the same line, as instructions with .aligned ask for.
void meet(std::uint32_t mask, const char* what, bool aligned, void* argument, Leader leader, const Site& site);

std::uint32_t lane_of_thread();

/// f(lane, its argument) for the lanes of a mask.
template <class T, class F>
void for_lanes(void* const* arguments, std::uint32_t mask, F&& f) {
  for (std::uint32_t rest = mask; rest; rest &= rest - 1) {
    const auto lane = static_cast<std::uint32_t>(std::countr_zero(rest));
    f(lane, *static_cast<T*>(arguments[lane]));
  }
}

enum class Shuffle : std::uint8_t { index, up, down, exchange };
/// The lane that is read, from the PTX manual's pseudo code.
std::uint32_t shuffle_source(Shuffle kind, std::uint32_t lane, std::uint32_t b, std::uint32_t width);
void check_shuffle(std::uint32_t source, std::uint32_t mask);

template <class T>
T shuffle(Shuffle kind, const char* what, std::uint32_t mask, T value, std::uint32_t b, int width, const Site& site) {
  static_assert(std::is_trivially_copyable_v<T> && (sizeof(T) == 4 || sizeof(T) == 8));
  struct Lane {
    T value, result;
    Shuffle kind;
    std::uint32_t b, width;
  } mine{value, value, kind, b, static_cast<std::uint32_t>(width)};
  meet(
      mask, what, false, &mine,
      [](void* const* arguments, std::uint32_t m) {
        for_lanes<Lane>(arguments, m, [&](std::uint32_t lane, Lane& l) {
          const std::uint32_t source = shuffle_source(l.kind, lane, l.b, l.width);
          check_shuffle(source, m);
          l.result = static_cast<Lane*>(arguments[source])->value;
        });
      },
      site);
  return mine.result;
}

/// combine(result, value) over the lanes, in order; every lane gets it.
template <class T, class F>
T reduce_lanes(const char* what, std::uint32_t mask, T value, F, const Site& site) {
  struct Lane {
    T value, result;
  } mine{value, value};
  meet(
      mask, what, false, &mine,
      [](void* const* arguments, std::uint32_t m) {
        const auto first = static_cast<std::uint32_t>(std::countr_zero(m));
        T sum = static_cast<Lane*>(arguments[first])->value;
        for_lanes<Lane>(arguments, m & (m - 1), [&](std::uint32_t, Lane& l) { sum = F{}(sum, l.value); });
        for_lanes<Lane>(arguments, m, [&](std::uint32_t, Lane& l) { l.result = sum; });
      },
      site);
  return mine.result;
}

struct Add {
  std::uint32_t operator()(std::uint32_t a, std::uint32_t b) const { return a + b; }
  std::int32_t operator()(std::int32_t a, std::int32_t b) const {
    return static_cast<std::int32_t>(static_cast<std::uint32_t>(a) + static_cast<std::uint32_t>(b));
  }
};
struct Min {
  template <class T>
  T operator()(T a, T b) const {
    return b < a ? b : a;
  }
};
struct Max {
  template <class T>
  T operator()(T a, T b) const {
    return a < b ? b : a;
  }
};
struct And {
  std::uint32_t operator()(std::uint32_t a, std::uint32_t b) const { return a & b; }
};
struct Or {
  std::uint32_t operator()(std::uint32_t a, std::uint32_t b) const { return a | b; }
};
struct Xor {
  std::uint32_t operator()(std::uint32_t a, std::uint32_t b) const { return a ^ b; }
};

/// Mask of the lanes that hold this lane's value.
std::uint32_t match_any(std::uint32_t mask, std::uint64_t value, const Site& site);
std::uint32_t match_all(std::uint32_t mask, std::uint64_t value, const Site& site);
template <class T>
std::uint64_t match_bits(T value) {
  static_assert(sizeof(T) == 4 || sizeof(T) == 8);
  if constexpr (sizeof(T) == 4)
    return std::bit_cast<std::uint32_t>(value);
  else
    return std::bit_cast<std::uint64_t>(value);
}

}  // namespace cuda_on_cpu

#define NSA_SITE const ::cuda_on_cpu::Site& site = ::cuda_on_cpu::Site::current()

void __syncwarp(unsigned mask = ~0u, NSA_SITE);
unsigned __ballot_sync(unsigned mask, int predicate, NSA_SITE);
int __any_sync(unsigned mask, int predicate, NSA_SITE);
int __all_sync(unsigned mask, int predicate, NSA_SITE);

template <class T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32, NSA_SITE) {
  return cuda_on_cpu::shuffle(cuda_on_cpu::Shuffle::index, "__shfl_sync", mask, value, static_cast<unsigned>(source),
                              width, site);
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32, NSA_SITE) {
  return cuda_on_cpu::shuffle(cuda_on_cpu::Shuffle::up, "__shfl_up_sync", mask, value, delta, width, site);
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32, NSA_SITE) {
  return cuda_on_cpu::shuffle(cuda_on_cpu::Shuffle::down, "__shfl_down_sync", mask, value, delta, width, site);
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int lanes, int width = 32, NSA_SITE) {
  return cuda_on_cpu::shuffle(cuda_on_cpu::Shuffle::exchange, "__shfl_xor_sync", mask, value,
                              static_cast<unsigned>(lanes), width, site);
}
template <class T>
unsigned __match_any_sync(unsigned mask, T value, NSA_SITE) {
  return cuda_on_cpu::match_any(mask, cuda_on_cpu::match_bits(value), site);
}
template <class T>
unsigned __match_all_sync(unsigned mask, T value, int* all, NSA_SITE) {
  const unsigned result = cuda_on_cpu::match_all(mask, cuda_on_cpu::match_bits(value), site);
  *all = result != 0;
  return result;
}
template <class T>
T __reduce_add_sync(unsigned mask, T value, NSA_SITE) {
  return cuda_on_cpu::reduce_lanes("__reduce_add_sync", mask, value, cuda_on_cpu::Add{}, site);
}
template <class T>
T __reduce_min_sync(unsigned mask, T value, NSA_SITE) {
  return cuda_on_cpu::reduce_lanes("__reduce_min_sync", mask, value, cuda_on_cpu::Min{}, site);
}
template <class T>
T __reduce_max_sync(unsigned mask, T value, NSA_SITE) {
  return cuda_on_cpu::reduce_lanes("__reduce_max_sync", mask, value, cuda_on_cpu::Max{}, site);
}
inline unsigned __reduce_and_sync(unsigned mask, unsigned value, NSA_SITE) {
  return cuda_on_cpu::reduce_lanes("__reduce_and_sync", mask, value, cuda_on_cpu::And{}, site);
}
inline unsigned __reduce_or_sync(unsigned mask, unsigned value, NSA_SITE) {
  return cuda_on_cpu::reduce_lanes("__reduce_or_sync", mask, value, cuda_on_cpu::Or{}, site);
}
inline unsigned __reduce_xor_sync(unsigned mask, unsigned value, NSA_SITE) {
  return cuda_on_cpu::reduce_lanes("__reduce_xor_sync", mask, value, cuda_on_cpu::Xor{}, site);
}

namespace nsa::cuda {
/// As an H100: the lowest lane of the mask.
inline bool elect_one(NSA_SITE) {
  cuda_on_cpu::meet(
      ~0u, "elect.sync", false, nullptr, [](void* const*, std::uint32_t) {}, site);
  return cuda_on_cpu::lane_of_thread() == 0;
}
}  // namespace nsa::cuda
