// RoPE, half-rotate pairs (i, i + D/2), in place; a thread takes W pairs of one head. Bytes: x twice, the table's row
// comes from L2. Bound by memory.
#include "ops/cuda/elements.cuh"
#include "ops/ops.h"

namespace nsa::cuda {

namespace {

__global__ void __launch_bounds__(kElementThreads)
    rope_table_kernel(float* table, std::int64_t T, std::int64_t half, double theta) {
  const std::int64_t i = std::int64_t{blockIdx.x} * kElementThreads + threadIdx.x;
  if (i >= T * half) return;
  // In double: at t = 100000 a float angle has an error of 4e-3.
  const double angle =
      static_cast<double>(i / half) * pow(theta, -static_cast<double>(i % half) / static_cast<double>(half));
  table[2 * i] = static_cast<float>(cos(angle));
  table[2 * i + 1] = static_cast<float>(sin(angle));
}

/// sign -1: the inverse rotation. Element e of all pairs: head h = e / half of (B, T, H), pair e % half.
template <class T>
struct Rotate {
  T* x;
  const float* table;
  std::int64_t steps, heads, half, stride;  ///< T, H, D/2
  float sign;
  template <int W>
  NSA_DEVICE void at(std::int64_t e) const {
    const std::int64_t head = e / half, i = e % half, t = head / heads % steps;
    T *low = x + head * 2 * half + i, *high = low + half;
    float a[W], b[W], turn[2 * W];
    load_floats<W>(a, low);
    load_floats<W>(b, high);
    const float* row = table + (t * stride * half + i) * 2;
    if constexpr (W == 1)
      turn[0] = row[0], turn[1] = row[1];
    else
      load_floats<2 * W>(turn, row);
    for (int k = 0; k < W; ++k) {
      const float c = turn[2 * k], s = sign * turn[2 * k + 1], low_k = a[k];
      a[k] = low_k * c - b[k] * s;
      b[k] = b[k] * c + low_k * s;
    }
    store_floats<W>(low, a);
    store_floats<W>(high, b);
  }
};

void rotate(const char* name, InOut x, In table, std::int64_t stride, float sign) {
  dispatch_type(x.dtype, [&]<class T>() {
    const std::int64_t half = x.dim(3) / 2;
    const Rotate<T> f{x.raw<T>(), table.raw<float>(), x.dim(1), x.dim(2), half, stride, sign};
    launch_elements<T>(name, x.numel() / 2, aligned_for_packs<T>(half, f.x, f.table), f);
  });
}

}  // namespace

void rope_table(Device& dev, Out table, double theta) {
  if (dev.planning()) return;
  const std::int64_t T = table.dim(0), half = table.dim(1);
  const auto blocks = static_cast<unsigned>((T * half + kElementThreads - 1) / kElementThreads);
  launch("rope_table", rope_table_kernel, blocks, kElementThreads, 0, nullptr, table.raw<float>(), T, half, theta);
}

void rope_forward(Device& dev, InOut x, In table, std::int64_t stride) {
  if (!dev.planning()) rotate("rope_forward", x, table, stride, 1);
}

void rope_backward(Device& dev, InOut dx, In table, std::int64_t stride) {
  if (!dev.planning()) rotate("rope_backward", dx, table, stride, -1);
}

}  // namespace nsa::cuda
