// Atomic operations on integers. There are none on floats: their sums would depend on the order (DESIGN law 11).
#pragma once

#include <cstddef>

#include "cuda_on_cpu/warp.h"

namespace cuda_on_cpu {
enum class Ordering : unsigned char { relaxed, acquire, release, both };
void begin_atomic(const void* p, std::size_t bytes, bool writes, Ordering ordering, const char* what, const Site& site);
void end_atomic(const void* p);
/// Not seen as plain accesses of the kernel (instrument.cpp).
void copy_unseen(void* to, const void* from, std::size_t bytes);
void wait_at_least(const unsigned* counter, unsigned value, const Site& site);

template <class T, class F>
T atomic(T* p, Ordering ordering, const char* what, const Site& site, F&& f) {
  static_assert(std::is_integral_v<T>, "an atomic on floats is not deterministic");
  begin_atomic(p, sizeof(T), true, ordering, what, site);
  T old;
  copy_unseen(&old, p, sizeof(T));
  const T fresh = f(old);
  copy_unseen(p, &fresh, sizeof(T));
  end_atomic(p);
  return old;
}
}  // namespace cuda_on_cpu

#define NSA_ATOMIC(name, result)                                                                \
  template <class T>                                                                            \
  T name(T* p, std::type_identity_t<T> value, NSA_SITE) {                                       \
    return cuda_on_cpu::atomic(p, cuda_on_cpu::Ordering::relaxed, #name, site,                  \
                               [&]([[maybe_unused]] T old) { return static_cast<T>(result); }); \
  }
NSA_ATOMIC(atomicAdd, old + value)
NSA_ATOMIC(atomicMin, old < value ? old : value)
NSA_ATOMIC(atomicMax, old > value ? old : value)
NSA_ATOMIC(atomicOr, old | value)
NSA_ATOMIC(atomicAnd, old& value)
NSA_ATOMIC(atomicXor, old ^ value)
NSA_ATOMIC(atomicExch, value)
#undef NSA_ATOMIC

namespace nsa::cuda {

inline unsigned atomic_add_acq_rel(unsigned* counter, unsigned value, NSA_SITE) {
  return cuda_on_cpu::atomic(counter, cuda_on_cpu::Ordering::both, "atomic_add_acq_rel", site,
                             [value](unsigned old) { return old + value; });
}
inline unsigned load_acquire(const unsigned* counter, NSA_SITE) {
  cuda_on_cpu::begin_atomic(counter, sizeof *counter, false, cuda_on_cpu::Ordering::acquire, "load_acquire", site);
  unsigned value;
  cuda_on_cpu::copy_unseen(&value, counter, sizeof value);
  return value;
}
inline void store_release(unsigned* counter, unsigned value, NSA_SITE) {
  cuda_on_cpu::atomic(counter, cuda_on_cpu::Ordering::release, "store_release", site,
                      [value](unsigned) { return value; });
}
inline void wait_at_least(const unsigned* counter, unsigned value, NSA_SITE) {
  cuda_on_cpu::wait_at_least(counter, value, site);
}

}  // namespace nsa::cuda
