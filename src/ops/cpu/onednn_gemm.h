// Matrix products by oneDNN, the only user of <dnnl.hpp>. Compiles with oneDNN 2.6 and 3.x.
#pragma once

#include <cstdint>

#include "core/device.h"
#include "core/tensor.h"

namespace nsa::cpu {

/// How the operands lie in memory, row-major: n as it is, t transposed. nt is y = x w^T, nn is dx = dy w, tn is dw =
/// dy^T x.
enum class GemmForm : int { nn, nt, tn };

/// C (M,N) = [C +] op(A) (M,K) op(B) (K,N). A is stored (M,K), for tn (K,M); B is stored (K,N), for nt (N,K). lda, ldb,
/// ldc: distance of stored rows in elements, 0 when they are contiguous.
struct Gemm {
  GemmForm form;
  std::int64_t M, N, K;
  std::int64_t lda = 0, ldb = 0, ldc = 0;
};

/// Runs it on dev.threads threads; the bits do not depend on their number. a, b, c: where the elements begin, and their
/// types: a and b are both f32 (then c too) or both bf16 (c either: sums are taken in float, C [+ sum] is rounded
/// once). Any size may be 0. Takes its scratch from dev.work; while planning it does only that. Not from inside a
/// parallel region.
void gemm(Device& dev, const Gemm& shape, In a, In b, Out c, Write mode);

/// Does this CPU multiply bf16? Where not, products of bf16 are done in f32, tile by tile: correct, not faster.
bool native_bf16();

}  // namespace nsa::cpu
