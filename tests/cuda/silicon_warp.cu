// One warp each.
#include "silicon.h"

#include "cuda/launch.cuh"
#include "cuda/math.cuh"
#include "cuda/matrix.cuh"
#include "cuda/warp.cuh"

namespace nsa::test {

using namespace nsa::cuda;

namespace {

__global__ void mma_kernel(const std::uint32_t* a, const std::uint32_t* b, const float* c, float* d) {
  const int lane = threadIdx.x;
  std::uint32_t ra[4], rb[2];
  float sum[4];
  for (int i = 0; i < 4; ++i) ra[i] = a[lane * 4 + i], sum[i] = c[lane * 4 + i];
  for (int i = 0; i < 2; ++i) rb[i] = b[lane * 2 + i];
  mma(sum, ra, rb);
  for (int i = 0; i < 4; ++i) d[lane * 4 + i] = sum[i];
}

template <int X, bool kTransposed>
__global__ void ldmatrix_kernel(const std::uint16_t* in, std::uint32_t* out) {
  NSA_SHARED(std::uint16_t, rows, [33 * 8]);
  const int lane = threadIdx.x;
  for (int i = 0; i < 8; ++i) rows[lane * 8 + i] = in[lane * 8 + i];
  if (lane < 8) rows[32 * 8 + lane] = 0x7777;
  __syncwarp();
  std::uint32_t r[X];
  ldmatrix<kTransposed>(r, rows + (lane < 8 * X ? lane : 32) * 8);
  for (int i = 0; i < X; ++i) out[lane * X + i] = r[i];
}

template <int X, bool kTransposed>
__global__ void stmatrix_kernel(const std::uint32_t* in, std::uint16_t* out) {
#if NSA_SM90
  NSA_SHARED(std::uint16_t, rows, [33 * 8]);
  const int lane = threadIdx.x;
  for (int i = 0; i < 8; ++i) rows[lane * 8 + i] = 0xEEEE;
  if (lane < 8) rows[32 * 8 + lane] = 0x7777;
  __syncwarp();
  std::uint32_t r[X];
  for (int i = 0; i < X; ++i) r[i] = in[lane * X + i];
  stmatrix<kTransposed>(rows + (lane < 8 * X ? lane : 32) * 8, r);
  __syncwarp();
  for (int i = 0; i < 8; ++i) out[lane * 8 + i] = rows[lane * 8 + i];
  if (lane < 8) out[32 * 8 + lane] = rows[32 * 8 + lane];
#endif
}

__global__ void movmatrix_kernel(const std::uint32_t* in, std::uint32_t* out) {
  out[threadIdx.x] = movmatrix(in[threadIdx.x]);
}

__global__ void shuffle_kernel(const std::int32_t* widths, int n_widths, const std::int32_t* deltas, int n_deltas,
                               std::uint32_t* out) {
  const int lane = threadIdx.x;
  const std::uint32_t value = 100u + threadIdx.x;
  for (int w = 0; w < n_widths; ++w) {
    for (int d = 0; d < n_deltas; ++d) {
      const int width = widths[w], delta = deltas[d];
      const std::uint32_t results[] = {__shfl_sync(~0u, value, delta, width), __shfl_up_sync(~0u, value, delta, width),
                                       __shfl_down_sync(~0u, value, delta, width),
                                       __shfl_xor_sync(~0u, value, delta, width),
                                       __shfl_sync(~0u, value, lane * 7 + delta, width)};
      for (int kind = 0; kind < 5; ++kind) out[((kind * n_widths + w) * n_deltas + d) * 32 + lane] = results[kind];
    }
  }
}

__global__ void vote_kernel(std::uint32_t* out) {
  const std::uint32_t lane = threadIdx.x;
  int test = 0, all = 0;
  const auto put = [&](std::uint32_t x) { out[test++ * 32 + lane] = x; };
  put(__ballot_sync(~0u, lane % 3 == 0));
  put(__any_sync(~0u, lane == 17));
  put(__any_sync(~0u, lane == 99));
  put(__all_sync(~0u, lane < 32));
  put(__all_sync(~0u, lane != 31));
  put(__match_any_sync(~0u, lane / 5));
  put(__match_any_sync(~0u, lane * lane % 7));
  put(__match_all_sync(~0u, 5u, &all));
  put(all);
  put(__match_all_sync(~0u, lane / 31, &all));
  put(all);
  put(__match_any_sync(~0u, static_cast<unsigned long long>(lane % 4) << 40));
  const std::uint32_t u = lane * 1103515245u + 12345u;  // spread over both signs
  const int s = static_cast<int>(u);
  put(__reduce_add_sync(~0u, s));
  put(__reduce_min_sync(~0u, s));
  put(__reduce_max_sync(~0u, s));
  put(__reduce_add_sync(~0u, u));
  put(__reduce_min_sync(~0u, u));
  put(__reduce_max_sync(~0u, u));
  put(__reduce_and_sync(~0u, u | 0xF0000000u));
  put(__reduce_or_sync(~0u, 1u << lane / 2));
  put(__reduce_xor_sync(~0u, u));
#if NSA_SM90
  put(elect_one());
#else
  put(lane == 0);
#endif
  put(0);
  if (lane < 8 || lane >= 24) return;  // a part of the warp, and the mask of exactly that part
  const std::uint32_t part = 0x00FFFF00u;
  put(__ballot_sync(part, lane & 1));
  put(__shfl_sync(part, lane, 23 - (static_cast<int>(lane) - 8)));
  put(__reduce_add_sync(part, lane));
  put(__match_any_sync(part, lane / 6));
}

__global__ void approximation_kernel(const float* x, float* y, int n) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n) return;
  y[i] = exp2_approx(x[i]), y[n + i] = log2_approx(x[i]);
  y[2 * n + i] = rcp_approx(x[i]), y[3 * n + i] = rsqrt_approx(x[i]);
}

__global__ void pack_kernel(const float* x, std::uint32_t* packed, int n) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) packed[i] = pack_bf16(x[i], x[(i + 1) % n]);
}

template <int X>
void ldmatrix_launch(bool transposed, const std::uint16_t* in, std::uint32_t* out) {
  if (transposed)
    launch("ldmatrix", ldmatrix_kernel<X, true>, 1, 32, 0, nullptr, in, out);
  else
    launch("ldmatrix", ldmatrix_kernel<X, false>, 1, 32, 0, nullptr, in, out);
}
template <int X>
void stmatrix_launch(bool transposed, const std::uint32_t* in, std::uint16_t* out) {
  if (transposed)
    launch("stmatrix", stmatrix_kernel<X, true>, 1, 32, 0, nullptr, in, out);
  else
    launch("stmatrix", stmatrix_kernel<X, false>, 1, 32, 0, nullptr, in, out);
}

}  // namespace

void run_mma(const std::uint32_t* a, const std::uint32_t* b, const float* c, float* d) {
  launch("mma", mma_kernel, 1, 32, 0, nullptr, a, b, c, d);
}
void run_ldmatrix(int matrices, bool transposed, const std::uint16_t* in, std::uint32_t* out) {
  if (matrices == 1) ldmatrix_launch<1>(transposed, in, out);
  if (matrices == 2) ldmatrix_launch<2>(transposed, in, out);
  if (matrices == 4) ldmatrix_launch<4>(transposed, in, out);
}
void run_stmatrix(int matrices, bool transposed, const std::uint32_t* in, std::uint16_t* out) {
  if (matrices == 1) stmatrix_launch<1>(transposed, in, out);
  if (matrices == 2) stmatrix_launch<2>(transposed, in, out);
  if (matrices == 4) stmatrix_launch<4>(transposed, in, out);
}
void run_movmatrix(const std::uint32_t* in, std::uint32_t* out) {
  launch("movmatrix", movmatrix_kernel, 1, 32, 0, nullptr, in, out);
}
void run_shuffles(const std::int32_t* widths, int n_widths, const std::int32_t* deltas, int n_deltas,
                  std::uint32_t* out) {
  launch("shuffles", shuffle_kernel, 1, 32, 0, nullptr, widths, n_widths, deltas, n_deltas, out);
}
void run_votes(std::uint32_t* out) { launch("votes", vote_kernel, 1, 32, 0, nullptr, out); }
void run_approximations(const float* x, float* y, int n) {
  launch("approximations", approximation_kernel, (n + 127) / 128, 128, 0, nullptr, x, y, n);
}
void run_pack(const float* x, std::uint32_t* packed, int n) {
  launch("pack", pack_kernel, (n + 127) / 128, 128, 0, nullptr, x, packed, n);
}

}  // namespace nsa::test
