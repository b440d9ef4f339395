// c = a b^T on Hopper: one thread of the first warpgroup brings tiles by TMA, the other two multiply 64 rows each by
// wgmma and store them by TMA. full[s] and empty[s] hand stage s to and fro.
#include "defects.h"

#include "cuda/barrier.cuh"
#include "cuda/launch.cuh"
#include "cuda/tma.cuh"
#include "cuda/wgmma.cuh"

namespace nsa::test {

using namespace nsa::cuda;

namespace {

constexpr int kRows = 128, kCols = 64, kDepth = 64, kStages = 3, kThreads = 384;
using Element = std::uint16_t;

struct Shared {
  Element *a, *b;
  float* c;
  Mbarrier *full, *empty;
};
template <class Taker>
NSA_DEVICE Shared take_all(Taker& t) {
  Shared s;
  s.a = t.template take<Element>(kStages * kRows * kDepth, 1024);
  s.b = t.template take<Element>(kStages * kCols * kDepth, 1024);
  s.c = t.template take<float>(kRows * kCols, 1024);
  s.full = t.template take<Mbarrier>(kStages);
  s.empty = t.template take<Mbarrier>(kStages);
  return s;
}

#if NSA_SM90

NSA_DEVICE void produce(const Shared& s, const TensorMap& a, const TensorMap& b, int steps, Defect defect) {
  if (threadIdx.x != 0) return;
  const int m0 = blockIdx.y * kRows, n0 = blockIdx.x * kCols;
  for (int i = 0; i < steps; ++i) {
    const int stage = i % kStages, round = i / kStages;
    if (defect != Defect::no_wait_for_empty)
      mbarrier_wait(s.empty + stage, defect == Defect::wrong_parity ? round & 1 : (round & 1) ^ 1);
    const int missing = defect == Defect::wrong_bytes ? 64 : 0;
    mbarrier_arrive_expect(s.full + stage, (kRows + kCols) * kDepth * 2 - missing);
    tma_load(s.a + stage * kRows * kDepth, a, s.full + stage, {i * kDepth, m0});
    tma_load(s.b + stage * kCols * kDepth, b, s.full + stage, {i * kDepth, n0});
  }
}

NSA_DEVICE void multiply(float (&d)[kCols / 2], const Shared& s, int steps, Defect defect) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, row0 = (warp / 4 - 1) * 64;
  const OperandStrides strides = operand_strides(false, 128, kRows);
  for (int i = 0; i < steps; ++i) {
    const int stage = i % kStages, round = i / kStages;
    if (defect != Defect::no_wait_for_full) mbarrier_wait(s.full + stage, round & 1);
    const std::uint64_t at_a = matrix_descriptor(shared_address(s.a + (stage * kRows + row0) * kDepth), strides, 128),
                        at_b = matrix_descriptor(shared_address(s.b + stage * kCols * kDepth), strides, 128);
    keep_registers(d);
    if (defect != Defect::no_wgmma_fence) wgmma_fence();
    for (int k = 0; k < kDepth / 16; ++k) {
      if (defect == Defect::one_warp_skips_wgmma && warp == 7) break;
      const std::uint32_t step = k_offset(false, 128, kRows, k) >> 4;
      wgmma<kCols>(d, at_a + step, at_b + (defect == Defect::wrong_k_step ? step / 2 : step), 1);
    }
    wgmma_commit();
    if (defect != Defect::no_wgmma_wait && defect != Defect::release_before_wgmma_wait) wgmma_wait<0>();
    keep_registers(d);
    if (lane == 0 && !(defect == Defect::one_arrival_short && warp == 5)) mbarrier_arrive(s.empty + stage);
    if (lane == 1 && defect == Defect::one_arrival_too_many && warp == 5) mbarrier_arrive(s.empty + stage);
    if (defect == Defect::release_before_wgmma_wait) wgmma_wait<0>();
    keep_registers(d);
  }
}

/// The accumulators go to shared memory, rows of 32 floats with the 128-byte swizzle, and by TMA to c.
NSA_DEVICE void store(const float (&d)[kCols / 2], const Shared& s, const TensorMap& c, Defect defect) {
  const int lane = threadIdx.x % 32, group = threadIdx.x / 128 - 1, row0 = group * 64 + threadIdx.x / 32 % 4 * 16;
  char* tile = reinterpret_cast<char*>(s.c);
#pragma unroll
  for (int i = 0; i < kCols / 2; ++i)
    *reinterpret_cast<float*>(tile + tile_offset(128, kRows, row0 + c_row(lane, i), c_col(lane, i) * 4)) = d[i];
  if (defect != Defect::no_proxy_fence_before_store) fence_async_proxy();
  if (defect == Defect::named_barrier_short)
    named_barrier_sync(1 + group, 160);
  else if (defect != Defect::no_barrier_before_store)
    named_barrier_sync(1 + group, 128);
  if (threadIdx.x % 128 != 0) return;
  const int m0 = blockIdx.y * kRows + group * 64, n0 = blockIdx.x * kCols;
  for (int panel = 0; panel < 2; ++panel)
    tma_store(c, tile + (panel * kRows + group * 64) * 128, {n0 + panel * 32, m0});
  bulk_commit();
  if (defect == Defect::overwrites_stored_tile) s.c[group * 64 * 32] = 0;
  if (defect != Defect::store_not_waited_for) bulk_wait_read<0>();
}

#endif

__global__ void __launch_bounds__(kThreads, 1)
    wgmma_product_kernel(Defect defect, const __grid_constant__ TensorMap a, const __grid_constant__ TensorMap b,
                         const __grid_constant__ TensorMap c, int K) {
#if NSA_SM90
  SharedMemory shared;
  const Shared s = take_all(shared);
  const int steps = (K + kDepth - 1) / kDepth;
  if (threadIdx.x == 0) {
    for (int i = 0; i < kStages; ++i) {
      mbarrier_init(s.full + i, 1);
      mbarrier_init(s.empty + i, 8);  // one arrival a warp: a wait speaks for its warp alone
    }
    if (defect != Defect::no_fence_after_init) mbarrier_fence_init();
  }
  if (defect != Defect::no_barrier_after_init) __syncthreads();
  if (defect == Defect::plain_read_of_mbarrier && s.full->word == 0) return;

  if (threadIdx.x < 128) {
    registers_decrease<40>();
    produce(s, a, b, steps, defect);
  } else {
    if (defect == Defect::too_many_registers)
      registers_increase<240>();
    else
      registers_increase<232>();  // 40 + 2 * 232 = 3 * 168
    float d[kCols / 2];
#pragma unroll
    for (int i = 0; i < kCols / 2; ++i) d[i] = 0;
    multiply(d, s, steps, defect);
    store(d, s, c, defect);
  }
#endif
}

TensorMap map_of(TensorType type, const void* base, int rows, int cols, std::uint32_t box_rows) {
  TensorShape shape;
  shape.type = type;
  shape.base = const_cast<void*>(base);
  shape.dims[0] = static_cast<std::uint64_t>(cols), shape.dims[1] = static_cast<std::uint64_t>(rows);
  shape.pitch[0] = shape.dims[0] * bytes_of(type);
  shape.box[0] = 128 / bytes_of(type), shape.box[1] = box_rows;
  return make_tensor_map(shape);
}

}  // namespace

void run_wgmma_product(Defect defect, const std::uint16_t* a, const std::uint16_t* b, float* c, int M, int N, int K) {
  SharedSize size;
  size.take<Element>(kStages * kRows * kDepth, 1024);
  size.take<Element>(kStages * kCols * kDepth, 1024);
  size.take<float>(kRows * kCols, 1024);
  size.take<Mbarrier>(kStages);
  size.take<Mbarrier>(kStages);
  launch("wgmma_product", wgmma_product_kernel, dim3(N / kCols, (M + kRows - 1) / kRows), kThreads, size.bytes, nullptr,
         defect, map_of(TensorType::bf16, a, M, K, kRows), map_of(TensorType::bf16, b, N, K, kCols),
         map_of(TensorType::f32, c, M, N, 64), K);
}

}  // namespace nsa::test
