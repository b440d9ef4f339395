// One warpgroup: wgmma with A in shared memory or registers, each operand K-major or MN-major.
#include "silicon.h"

#include "cuda/barrier.cuh"
#include "cuda/launch.cuh"
#include "cuda/wgmma.cuh"

namespace nsa::test {

using namespace nsa::cuda;

namespace {

template <int N, int kA, int kB, bool kRegisters>
__global__ void __launch_bounds__(128) wgmma_kernel(const __grid_constant__ WgmmaCase p, const std::uint32_t* a,
                                                    const std::uint32_t* b, const float* c, float* out) {
#if NSA_SM90
  SharedMemory shared;
  std::uint32_t* a_image = shared.take<std::uint32_t>(p.a_bytes / 4, 1024);
  std::uint32_t* b_image = shared.take<std::uint32_t>(p.b_bytes / 4, 1024);
  const int t = threadIdx.x;
  for (std::uint32_t i = t; i < p.a_bytes / 4; i += 128) a_image[i] = a[i];
  for (std::uint32_t i = t; i < p.b_bytes / 4; i += 128) b_image[i] = b[i];
  fence_async_proxy();
  __syncthreads();

  float d[N / 2];
#pragma unroll
  for (int i = 0; i < N / 2; ++i) d[i] = c[t * (N / 2) + i];
  // A descriptor's low bits are the address / 16.
  const std::uint64_t at_a = p.a_layout + (shared_address(a_image) >> 4),
                      at_b = p.b_layout + (shared_address(b_image) >> 4);
  for (int s = 0; s < p.steps; ++s) {
    const int accumulate = s > 0 || p.accumulate;
    keep_registers(d);
    if constexpr (kRegisters) {
      std::uint32_t r[4];
      for (int i = 0; i < 4; ++i) r[i] = a[(s * 128 + t) * 4 + i];
      keep_registers(r);
      wgmma_fence();
      wgmma<N, kB>(d, r, at_b + (p.b_offset[s] >> 4), accumulate);
    } else {
      wgmma_fence();
      wgmma<N, kA, kB>(d, at_a + (p.a_offset[s] >> 4), at_b + (p.b_offset[s] >> 4), accumulate);
    }
    wgmma_commit();
    wgmma_wait<0>();
    keep_registers(d);
  }
#pragma unroll
  for (int i = 0; i < N / 2; ++i) out[t * (N / 2) + i] = d[i];
#endif
}

template <int N, int kA, int kB, bool kRegisters>
void run(const WgmmaCase& p, const std::uint32_t* a, const std::uint32_t* b, const float* c, float* d) {
  SharedSize size;
  size.take<std::uint32_t>(p.a_bytes / 4, 1024);
  size.take<std::uint32_t>(p.b_bytes / 4, 1024);
  launch("wgmma", wgmma_kernel<N, kA, kB, kRegisters>, 1, 128, size.bytes, nullptr, p, a, b, c, d);
}

template <int N>
void run_n(const WgmmaCase& p, const std::uint32_t* a, const std::uint32_t* b, const float* c, float* d) {
  if (p.a_in_registers) return p.b_mn_major ? run<N, 0, 1, true>(p, a, b, c, d) : run<N, 0, 0, true>(p, a, b, c, d);
  if (p.a_mn_major) return p.b_mn_major ? run<N, 1, 1, false>(p, a, b, c, d) : run<N, 1, 0, false>(p, a, b, c, d);
  return p.b_mn_major ? run<N, 0, 1, false>(p, a, b, c, d) : run<N, 0, 0, false>(p, a, b, c, d);
}

}  // namespace

void run_wgmma(const WgmmaCase& p, const std::uint32_t* a, const std::uint32_t* b, const float* c, float* d) {
  switch (p.n) {
    case 8: return run_n<8>(p, a, b, c, d);
    case 16: return run_n<16>(p, a, b, c, d);
    case 32: return run_n<32>(p, a, b, c, d);
    case 64: return run_n<64>(p, a, b, c, d);
    case 96: return run_n<96>(p, a, b, c, d);
    case 128: return run_n<128>(p, a, b, c, d);
    case 192: return run_n<192>(p, a, b, c, d);
    case 256: return run_n<256>(p, a, b, c, d);
    default: fail("run_wgmma: no case with N = {}", p.n);
  }
}

}  // namespace nsa::test
