// cp.async, TMA, bulk copies, mbarrier.
#include "silicon.h"

#include "cuda/barrier.cuh"
#include "cuda/copy.cuh"
#include "cuda/launch.cuh"
#include "cuda/tma.cuh"

namespace nsa::test {

using namespace nsa::cuda;

namespace {

// Bytes are moved as words: threads that share two bytes would be a race to the checker.
template <int N>
__global__ void cp_async_kernel(const std::uint8_t* in, std::uint32_t* out) {
  NSA_SHARED(std::uint32_t, rows, [2][8 * N]);
  const int lane = threadIdx.x;
  for (int i = 0; i < N / 4; ++i) rows[0][lane * N / 4 + i] = rows[1][lane * N / 4 + i] = 0xEEEEEEEE;
  __syncwarp();
  cp_async<N>(rows[0] + lane * N / 4, in + lane * N, lane % (N + 1));
  cp_async_commit();
  cp_async<N>(rows[1] + lane * N / 4, in + lane * N, lane & 1 ? 0 : N);
  cp_async_commit();
  cp_async_wait<0>();
  __syncwarp();
  for (int row = 0; row < 2; ++row)
    for (int i = 0; i < N / 4; ++i) out[(row * 32 + lane) * N / 4 + i] = rows[row][lane * N / 4 + i];
}

__global__ void cp_async_arrive_kernel(const std::uint8_t* in, std::uint32_t* out) {
#if NSA_SM90
  NSA_SHARED(std::uint32_t, words, [128]);
  NSA_SHARED(Mbarrier, barrier, [1]);
  const int lane = threadIdx.x;
  if (lane == 0) mbarrier_init(barrier, 32);
  __syncwarp();
  cp_async<16>(words + lane * 4, in + lane * 16);
  cp_async_arrive(barrier);
  mbarrier_wait(barrier, 0);
  for (int i = 0; i < 4; ++i) out[lane * 4 + i] = words[(31 - lane) * 4 + i];
#endif
}

struct Coordinates {
  int c[5];
};

template <int R>
__global__ void tma_load_kernel(const __grid_constant__ TensorMap map, Coordinates at, std::uint32_t offset,
                                std::uint32_t bytes, std::uint32_t window, std::uint32_t* out) {
#if NSA_SM90
  SharedMemory shared;
  std::uint32_t* words = shared.take<std::uint32_t>(window / 4, 1024);
  Mbarrier* barrier = shared.take<Mbarrier>(1);
  for (std::uint32_t i = threadIdx.x; i < window / 4; i += blockDim.x) words[i] = 0xEEEEEEEE;
  if (threadIdx.x == 0) {
    mbarrier_init(barrier, 1);
    mbarrier_fence_init();
  }
  fence_async_proxy();
  __syncthreads();
  if (threadIdx.x == 0) {
    int c[R];
    for (int i = 0; i < R; ++i) c[i] = at.c[i];
    mbarrier_arrive_expect(barrier, bytes);
    tma_load(words + offset / 4, map, barrier, c);
  }
  mbarrier_wait(barrier, 0);
  for (std::uint32_t i = threadIdx.x; i < window / 4; i += blockDim.x) out[i] = words[i];
#endif
}

__global__ void tma_store_kernel(const __grid_constant__ TensorMap map, Coordinates at, const std::uint32_t* image,
                                 std::uint32_t bytes, std::uint32_t offset, bool add) {
#if NSA_SM90
  SharedMemory shared;
  std::uint32_t* words = shared.take<std::uint32_t>(bytes / 4, 1024);
  for (std::uint32_t i = threadIdx.x; i < bytes / 4; i += blockDim.x) words[i] = image[i];
  fence_async_proxy();
  __syncthreads();
  if (threadIdx.x != 0) return;
  const int c[2] = {at.c[0], at.c[1]};
  if (add)
    tma_reduce_add(map, words + offset / 4, c);
  else
    tma_store(map, words + offset / 4, c);
  bulk_commit();
  bulk_wait<0>();
#endif
}

__global__ void bulk_kernel(const std::uint32_t* in, std::uint32_t* out, float* sums, const float* terms) {
#if NSA_SM90
  SharedMemory shared;
  std::uint32_t* words = shared.take<std::uint32_t>(512, 128);
  float* floats = shared.take<float>(64, 128);
  Mbarrier* barrier = shared.take<Mbarrier>(1);
  for (int i = threadIdx.x; i < 512; i += blockDim.x) words[i] = 0xEEEEEEEE;
  if (threadIdx.x < 64) floats[threadIdx.x] = terms[threadIdx.x];
  if (threadIdx.x == 0) {
    mbarrier_init(barrier, 1);
    mbarrier_fence_init();
  }
  fence_async_proxy();
  __syncthreads();
  if (threadIdx.x != 0) return;
  mbarrier_arrive_expect(barrier, 1024 + 16);
  bulk_load(words + 128, in + 8, 1024, barrier);
  bulk_load(words + 4, in, 16, barrier);
  mbarrier_wait(barrier, 0);
  bulk_store(out, words, 2048);
  bulk_commit();
  bulk_reduce_add(sums, floats, 256);
  bulk_commit();
  bulk_wait<0>();
#endif
}

__global__ void mbarrier_kernel(const std::int32_t* steps, int n, std::uint32_t* seen) {
#if NSA_SM90
  NSA_SHARED(Mbarrier, barrier, [1]);
  for (int i = 0; i < n; ++i) {
    const int operation = steps[2 * i], count = steps[2 * i + 1];
    if (operation == 0) mbarrier_init(barrier, count);
    if (operation == 1) mbarrier_arrive(barrier);
    if (operation == 2) mbarrier_arrive(barrier, count);
    if (operation == 3) mbarrier_expect(barrier, count);
    if (operation == 4) mbarrier_arrive_expect(barrier, count);
    if (operation == 5) mbarrier_complete(barrier, count);
    seen[2 * i] = mbarrier_test(barrier, 0), seen[2 * i + 1] = mbarrier_test(barrier, 1);
  }
#endif
}

template <int N>
void cp_async_launch(const std::uint8_t* in, std::uint8_t* out) {
  launch("cp_async", cp_async_kernel<N>, 1, 32, 0, nullptr, in, reinterpret_cast<std::uint32_t*>(out));
}

template <int R>
void tma_load_launch(const TensorShape& shape, const Coordinates& at, std::uint32_t offset, std::uint32_t window,
                     std::uint32_t* out) {
  SharedSize size;
  size.take<std::uint32_t>(window / 4, 1024);
  size.take<Mbarrier>(1);
  std::uint32_t bytes = bytes_of(shape.type);
  for (int i = 0; i < R; ++i) bytes *= shape.box[i];
  launch("tma_load", tma_load_kernel<R>, 1, 128, size.bytes, nullptr, make_tensor_map(shape), at, offset, bytes, window,
         out);
}

Coordinates coordinates_of(const TensorShape& shape, const int* c) {
  Coordinates at{};
  for (int i = 0; i < shape.rank; ++i) at.c[i] = c[i];
  return at;
}

}  // namespace

void run_cp_async(int bytes, const std::uint8_t* in, std::uint8_t* out) {
  if (bytes == 4) cp_async_launch<4>(in, out);
  if (bytes == 8) cp_async_launch<8>(in, out);
  if (bytes == 16) cp_async_launch<16>(in, out);
}

void run_cp_async_arrive(const std::uint8_t* in, std::uint8_t* out) {
  launch("cp_async_arrive", cp_async_arrive_kernel, 1, 32, 0, nullptr, in, reinterpret_cast<std::uint32_t*>(out));
}

void run_tma_load(const TensorShape& shape, const int* coordinates, std::uint32_t offset, std::uint32_t window,
                  std::uint32_t* out) {
  const Coordinates at = coordinates_of(shape, coordinates);
  if (shape.rank == 2) tma_load_launch<2>(shape, at, offset, window, out);
  if (shape.rank == 3) tma_load_launch<3>(shape, at, offset, window, out);
  if (shape.rank == 4) tma_load_launch<4>(shape, at, offset, window, out);
  if (shape.rank == 5) tma_load_launch<5>(shape, at, offset, window, out);
}

void run_tma_store(const TensorShape& shape, const int* coordinates, const std::uint32_t* image, std::uint32_t bytes,
                   std::uint32_t offset, bool add) {
  SharedSize size;
  size.take<std::uint32_t>(bytes / 4, 1024);
  launch("tma_store", tma_store_kernel, 1, 128, size.bytes, nullptr, make_tensor_map(shape),
         coordinates_of(shape, coordinates), image, bytes, offset, add);
}

void run_bulk(const std::uint32_t* in, std::uint32_t* out, float* sums, const float* terms) {
  SharedSize size;
  size.take<std::uint32_t>(512, 128);
  size.take<float>(64, 128);
  size.take<Mbarrier>(1);
  launch("bulk", bulk_kernel, 1, 128, size.bytes, nullptr, in, out, sums, terms);
}

void run_mbarrier(const std::int32_t* steps, int n, std::uint32_t* seen) {
  launch("mbarrier", mbarrier_kernel, 1, 1, 0, nullptr, steps, n, seen);
}

}  // namespace nsa::test
