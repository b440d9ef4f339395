// SwiGLU, element by element: y = silu(gate) * up. Bytes: forward 3 elements, backward 5. Bound by memory. d_gate may
// be gate and d_up up: a thread writes what it has read.
#include "ops/cuda/elements.cuh"
#include "ops/ops.h"

namespace nsa::cuda {

namespace {

/// 1 / (1 + e^-x): the exponential saturates, nothing overflows into a NaN.
NSA_DEVICE float sigmoid(float x) { return 1.0f / (1.0f + exp2_approx(-1.44269504f * x)); }

template <class T>
struct Forward {
  T* y;
  const T *gate, *up;
  template <int W>
  NSA_DEVICE void at(std::int64_t i) const {
    float g[W], u[W];
    load_floats<W>(g, gate + i);
    load_floats<W>(u, up + i);
    for (int k = 0; k < W; ++k) u[k] *= g[k] * sigmoid(g[k]);
    store_floats<W>(y + i, u);
  }
};

template <class T>
struct Backward {
  T *d_gate, *d_up;
  const T *dy, *gate, *up;
  template <int W>
  NSA_DEVICE void at(std::int64_t i) const {
    float d[W], g[W], u[W];
    load_floats<W>(d, dy + i);
    load_floats<W>(g, gate + i);
    load_floats<W>(u, up + i);
    for (int k = 0; k < W; ++k) {
      const float s = sigmoid(g[k]), silu = g[k] * s;
      u[k] *= d[k] * s * (1.0f + g[k] * (1.0f - s));
      d[k] *= silu;
    }
    store_floats<W>(d_gate + i, u);
    store_floats<W>(d_up + i, d);
  }
};

}  // namespace

void swiglu_forward(Device& dev, Out y, In gate, In up) {
  if (dev.planning()) return;
  dispatch_type(y.dtype, [&]<class T>() {
    const Forward<T> f{y.raw<T>(), gate.raw<T>(), up.raw<T>()};
    launch_elements<T>("swiglu_forward", y.numel(), aligned_for_packs<T>(0, f.y, f.gate, f.up), f);
  });
}

void swiglu_backward(Device& dev, Out d_gate, Out d_up, In dy, In gate, In up) {
  if (dev.planning()) return;
  dispatch_type(dy.dtype, [&]<class T>() {
    const Backward<T> f{d_gate.raw<T>(), d_up.raw<T>(), dy.raw<T>(), gate.raw<T>(), up.raw<T>()};
    launch_elements<T>("swiglu_backward", dy.numel(), aligned_for_packs<T>(0, f.d_gate, f.d_up, f.dy, f.gate, f.up), f);
  });
}

}  // namespace nsa::cuda
