// 128-bit accesses: 4 f32 or 8 bf16 at once. Trap: the address must be a multiple of 16, so rows whose length is no
// multiple of a pack go element by element (aligned_for_packs()).
#pragma once

#include "cuda/math.cuh"

#if NSA_EMULATED
#include "cuda_on_cpu/alignment.h"
#else
namespace nsa::cuda {
NSA_DEVICE void check_aligned(const void*) {}
}  // namespace nsa::cuda
#endif

namespace nsa::cuda {

/// 16 bytes of T, in registers as T.
template <class T>
struct alignas(16) Pack {
  static constexpr int kSize = 16 / sizeof(T);
  T v[kSize];
};

template <class T>
NSA_DEVICE Pack<T> load_pack(const T* p) {
  check_aligned(p);
  const uint4 bits = *reinterpret_cast<const uint4*>(p);
  return *reinterpret_cast<const Pack<T>*>(&bits);
}
template <class T>
NSA_DEVICE void store_pack(T* p, const Pack<T>& pack) {
  check_aligned(p);
  *reinterpret_cast<uint4*>(p) = *reinterpret_cast<const uint4*>(&pack);
}

/// W elements as floats: one, or whole packs.
template <int W, class T>
NSA_DEVICE void load_floats(float (&v)[W], const T* p) {
  if constexpr (W == 1) {
    v[0] = to_float(*p);
  } else {
    static_assert(W % Pack<T>::kSize == 0);
#pragma unroll
    for (int i = 0; i < W; i += Pack<T>::kSize) {
      const Pack<T> pack = load_pack(p + i);
#pragma unroll
      for (int k = 0; k < Pack<T>::kSize; ++k) v[i + k] = to_float(pack.v[k]);
    }
  }
}
template <int W, class T>
NSA_DEVICE void store_floats(T* p, const float (&v)[W]) {
  if constexpr (W == 1) {
    *p = from_float<T>(v[0]);
  } else {
    static_assert(W % Pack<T>::kSize == 0);
#pragma unroll
    for (int i = 0; i < W; i += Pack<T>::kSize) {
      Pack<T> pack;
#pragma unroll
      for (int k = 0; k < Pack<T>::kSize; ++k) pack.v[k] = from_float<T>(v[i + k]);
      store_pack(p + i, pack);
    }
  }
}

/// Can all rows of `row` elements from these addresses on be read in packs?
template <class T, class... Pointers>
inline bool aligned_for_packs(std::int64_t row, Pointers... pointers) {
  const std::uintptr_t bits = (std::uintptr_t{0} | ... | reinterpret_cast<std::uintptr_t>(pointers));
  return row % Pack<T>::kSize == 0 && bits % 16 == 0;
}

}  // namespace nsa::cuda
