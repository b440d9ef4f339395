// Matrices across a warp. Registers hold pairs of bf16; which element a lane holds: layout.cuh.
#pragma once

#include "cuda/shared.cuh"

#if !defined(__CUDACC__)
#include "cuda_on_cpu/matrix.h"
#else

namespace nsa::cuda {

/// X = 1, 2, 4 matrices of 8 rows of 16 bytes. Trap: the rows' addresses come from lanes 0 .. 8X-1, others' are
/// ignored.
template <bool kTransposed, int X>
NSA_DEVICE void ldmatrix(std::uint32_t (&r)[X], const void* row) {
  static_assert(X == 1 || X == 2 || X == 4);
  const std::uint32_t at = shared_address(row);
#define NSA_LDMATRIX(form, registers, ...) \
  asm volatile("ldmatrix.sync.aligned.m8n8." form ".shared.b16 {" registers:__VA_ARGS__ : "r"(at) : "memory")
  if constexpr (X == 1) {
    if constexpr (kTransposed)
      NSA_LDMATRIX("x1.trans", "%0}, [%1];", "=r"(r[0]));
    else
      NSA_LDMATRIX("x1", "%0}, [%1];", "=r"(r[0]));
  } else if constexpr (X == 2) {
    if constexpr (kTransposed)
      NSA_LDMATRIX("x2.trans", "%0,%1}, [%2];", "=r"(r[0]), "=r"(r[1]));
    else
      NSA_LDMATRIX("x2", "%0,%1}, [%2];", "=r"(r[0]), "=r"(r[1]));
  } else {
    if constexpr (kTransposed)
      NSA_LDMATRIX("x4.trans", "%0,%1,%2,%3}, [%4];", "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]));
    else
      NSA_LDMATRIX("x4", "%0,%1,%2,%3}, [%4];", "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]));
  }
#undef NSA_LDMATRIX
}

/// sm_90.
template <bool kTransposed, int X>
NSA_DEVICE void stmatrix(void* row, const std::uint32_t (&r)[X]) {
  static_assert(X == 1 || X == 2 || X == 4);
  const std::uint32_t at = shared_address(row);
#define NSA_STMATRIX(form, registers, ...)                                                                    \
  asm volatile("stmatrix.sync.aligned.m8n8." form ".shared.b16 [%0], {" registers "};" ::"r"(at), __VA_ARGS__ \
               : "memory")
  if constexpr (X == 1) {
    if constexpr (kTransposed)
      NSA_STMATRIX("x1.trans", "%1", "r"(r[0]));
    else
      NSA_STMATRIX("x1", "%1", "r"(r[0]));
  } else if constexpr (X == 2) {
    if constexpr (kTransposed)
      NSA_STMATRIX("x2.trans", "%1,%2", "r"(r[0]), "r"(r[1]));
    else
      NSA_STMATRIX("x2", "%1,%2", "r"(r[0]), "r"(r[1]));
  } else {
    if constexpr (kTransposed)
      NSA_STMATRIX("x4.trans", "%1,%2,%3,%4", "r"(r[0]), "r"(r[1]), "r"(r[2]), "r"(r[3]));
    else
      NSA_STMATRIX("x4", "%1,%2,%3,%4", "r"(r[0]), "r"(r[1]), "r"(r[2]), "r"(r[3]));
  }
#undef NSA_STMATRIX
}

/// The transpose of an 8 x 8 matrix that lies in one register of each lane.
NSA_DEVICE std::uint32_t movmatrix(std::uint32_t r) {
  std::uint32_t transposed;
  asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(transposed) : "r"(r));
  return transposed;
}

/// d (16 x 8, f32) += a (16 x 16) b (16 x 8), bf16.
NSA_DEVICE void mma(float (&d)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

}  // namespace nsa::cuda
#endif
