// TMA: boxes of up to 5 dimensions between device and shared memory, and plain runs of bytes ("bulk"). One thread
// issues; loads complete on an mbarrier, stores in the issuing thread's groups. What is refused: layout.cuh. sm_90.
#pragma once

#include "cuda/layout.cuh"
#include "cuda/mbarrier.cuh"

#if !defined(__CUDACC__)
#include "cuda_on_cpu/tma.h"
#else

#include <cuda.h>

namespace nsa::cuda {

/// A kernel parameter: const __grid_constant__ TensorMap map.
using TensorMap = CUtensorMap;
TensorMap make_tensor_map(const TensorShape& shape);

#define NSA_TMA_LOAD(dims, coordinates, ...)                                                   \
  asm volatile("cp.async.bulk.tensor." dims                                                    \
               ".shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {" coordinates \
               "}], [%2];" ::"r"(shared_address(to)),                                          \
               "l"(&map), "r"(shared_address(b)), __VA_ARGS__                                  \
               : "memory")
/// Coordinates: innermost dimension first, in elements, signed. Trap: every byte of the box completes on the barrier,
/// those outside of the array too.
template <int R>
NSA_DEVICE void tma_load(void* to, const TensorMap& map, Mbarrier* b, const int (&c)[R]) {
  static_assert(R >= 2 && R <= 5);
  if constexpr (R == 2) NSA_TMA_LOAD("2d", "%3,%4", "r"(c[0]), "r"(c[1]));
  if constexpr (R == 3) NSA_TMA_LOAD("3d", "%3,%4,%5", "r"(c[0]), "r"(c[1]), "r"(c[2]));
  if constexpr (R == 4) NSA_TMA_LOAD("4d", "%3,%4,%5,%6", "r"(c[0]), "r"(c[1]), "r"(c[2]), "r"(c[3]));
  if constexpr (R == 5) NSA_TMA_LOAD("5d", "%3,%4,%5,%6,%7", "r"(c[0]), "r"(c[1]), "r"(c[2]), "r"(c[3]), "r"(c[4]));
}
#undef NSA_TMA_LOAD

#define NSA_TMA_STORE(form, coordinates, ...) \
  asm volatile(form " [%0, {" coordinates "}], [%1];" ::"l"(&map), "r"(shared_address(from)), __VA_ARGS__ : "memory")
#define NSA_TMA_STORES(start, end)                                                                                \
  static_assert(R >= 2 && R <= 5);                                                                                \
  if constexpr (R == 2) NSA_TMA_STORE(start "2d" end, "%2,%3", "r"(c[0]), "r"(c[1]));                             \
  if constexpr (R == 3) NSA_TMA_STORE(start "3d" end, "%2,%3,%4", "r"(c[0]), "r"(c[1]), "r"(c[2]));               \
  if constexpr (R == 4) NSA_TMA_STORE(start "4d" end, "%2,%3,%4,%5", "r"(c[0]), "r"(c[1]), "r"(c[2]), "r"(c[3])); \
  if constexpr (R == 5)                                                                                           \
  NSA_TMA_STORE(start "5d" end, "%2,%3,%4,%5,%6", "r"(c[0]), "r"(c[1]), "r"(c[2]), "r"(c[3]), "r"(c[4]))
/// What lies outside is dropped, by whole 16 bytes.
template <int R>
NSA_DEVICE void tma_store(const TensorMap& map, const void* from, const int (&c)[R]) {
  NSA_TMA_STORES("cp.async.bulk.tensor.", ".global.shared::cta.bulk_group");
}
/// Adds instead; the type is the map's. Trap: deterministic only where something orders the adds to one place.
template <int R>
NSA_DEVICE void tma_reduce_add(const TensorMap& map, const void* from, const int (&c)[R]) {
  NSA_TMA_STORES("cp.reduce.async.bulk.tensor.", ".global.shared::cta.add.bulk_group");
}
#undef NSA_TMA_STORES
#undef NSA_TMA_STORE

/// Addresses and sizes are multiples of 16 bytes.
NSA_DEVICE void bulk_load(void* to, const void* from, std::uint32_t bytes, Mbarrier* b) {
  asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(
                   shared_address(to)),
               "l"(from), "r"(bytes), "r"(shared_address(b))
               : "memory");
}
NSA_DEVICE void bulk_store(void* to, const void* from, std::uint32_t bytes) {
  asm volatile("cp.async.bulk.global.shared::cta.bulk_group [%0], [%1], %2;" ::"l"(to), "r"(shared_address(from)),
               "r"(bytes)
               : "memory");
}
NSA_DEVICE void bulk_reduce_add(float* to, const float* from, std::uint32_t bytes) {
  asm volatile("cp.reduce.async.bulk.global.shared::cta.bulk_group.add.f32 [%0], [%1], %2;" ::"l"(to),
               "r"(shared_address(from)), "r"(bytes)
               : "memory");
}
NSA_DEVICE void bulk_commit() { asm volatile("cp.async.bulk.commit_group;" ::: "memory"); }
/// All but the N newest groups of this thread's stores are done.
template <int N>
NSA_DEVICE void bulk_wait() {
  asm volatile("cp.async.bulk.wait_group %0;" ::"n"(N) : "memory");
}
/// ... have read shared memory, which may be written again.
template <int N>
NSA_DEVICE void bulk_wait_read() {
  asm volatile("cp.async.bulk.wait_group.read %0;" ::"n"(N) : "memory");
}

}  // namespace nsa::cuda
#endif
