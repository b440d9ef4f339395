// c = a b^T: tiles come by cp.async into two buffers, products by mma.sync from ldmatrix. A warp has 16 rows, a
// block 64.
#include "defects.h"

#include "cuda/copy.cuh"
#include "cuda/launch.cuh"
#include "cuda/matrix.cuh"

namespace nsa::test {

using namespace nsa::cuda;

namespace {

constexpr int kRows = 64, kCols = 64, kDepth = 32, kThreads = 128;
using Element = std::uint16_t;

/// Rows of 64 bytes, their 16-byte chunks swizzled so that 8 rows of a chunk lie in different banks.
NSA_DEVICE Element* chunk(Element* tile, int row, int c) { return tile + row * kDepth + ((c ^ (row / 2 & 3)) * 8); }

NSA_DEVICE void load_tile(Element* tile, const Element* from, int row0, int rows, int k0, int K, Defect defect) {
  for (int i = threadIdx.x; i < 64 * kDepth / 8; i += kThreads) {
    const int row = i / (kDepth / 8), c = i % (kDepth / 8), k = k0 + c * 8;
    const bool inside = (row0 + row < rows || defect == Defect::no_tail_mask) && k < K;
    const Element* source = from + (inside ? static_cast<std::int64_t>(row0 + row) * K + k : 0);
    cp_async<16>(chunk(tile, row, c), source, inside ? 16 : 0);
  }
}

__global__ void __launch_bounds__(kThreads)
    mma_product_kernel(Defect defect, const Element* a, const Element* b, float* c, int M, int K) {
  SharedMemory shared;
  Element* a_tiles = shared.take<Element>(2 * kRows * kDepth);
  Element* b_tiles = shared.take<Element>(2 * kCols * kDepth);
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, row0 = blockIdx.x * kRows,
            steps = (K + kDepth - 1) / kDepth;

  load_tile(a_tiles, a, row0, M, 0, K, defect);
  load_tile(b_tiles, b, 0, kCols, 0, K, Defect::none);
  if (defect != Defect::no_commit_of_copy) cp_async_commit();
  float sum[kCols / 8][4] = {};
  for (int step = 0; step < steps; ++step) {
    const int now = step % 2;
    if (step + 1 < steps) {
      load_tile(a_tiles + (1 - now) * kRows * kDepth, a, row0, M, (step + 1) * kDepth, K, defect);
      load_tile(b_tiles + (1 - now) * kCols * kDepth, b, 0, kCols, (step + 1) * kDepth, K, Defect::none);
    }
    cp_async_commit();
    if (defect != Defect::no_wait_for_copy) cp_async_wait<1>();
    if (defect != Defect::no_barrier_after_copy) __syncthreads();

    Element *a_tile = a_tiles + now * kRows * kDepth, *b_tile = b_tiles + now * kCols * kDepth;
    for (int k = 0; k < kDepth / 16; ++k) {
      std::uint32_t ra[4];
      ldmatrix<false>(ra, chunk(a_tile, warp * 16 + lane % 16, k * 2 + lane / 16));
      for (int n = 0; n < kCols / 8; ++n) {
        std::uint32_t rb[2];
        const int overrun = defect == Defect::ldmatrix_overrun && n == 7 && now == 1 ? 64 : 0;
        const int shift = defect == Defect::ldmatrix_misaligned ? 4 : 0;
        ldmatrix<false>(rb, chunk(b_tile, n * 8 + lane % 8 + overrun, k * 2 + lane / 8 % 2) + shift);
        mma(sum[n], ra, rb);
      }
    }
    if (defect == Defect::barrier_in_a_branch) {
      if (warp != 3) __syncthreads();
    } else if (defect != Defect::no_barrier_before_refill) {
      __syncthreads();
    }
  }
  for (int n = 0; n < kCols / 8; ++n)
    for (int i = 0; i < 4; ++i) {
      const int row = row0 + warp * 16 + c_row(lane, i);
      if (row < M) c[static_cast<std::int64_t>(row) * kCols + n * 8 + c_col(lane, i)] = sum[n][i];
    }
}

}  // namespace

void run_mma_product(Defect defect, const std::uint16_t* a, const std::uint16_t* b, float* c, int M, int K) {
  SharedSize size;
  size.take<Element>(2 * kRows * kDepth);
  size.take<Element>((defect == Defect::shared_too_small ? 1 : 2) * kCols * kDepth);
  launch("mma_product", mma_product_kernel, (M + kRows - 1) / kRows, kThreads, size.bytes, nullptr, defect, a, b, c, M,
         K);
}

}  // namespace nsa::test
