// AdamW in one launch over the slabs w, m, v, grad and the bf16 copy of w: 28 (30) bytes and about 15 FLOPs a
// parameter, bound by memory. A thread takes four parameters, which lie in one range. No reduction.
#include "ops/cuda/elements.cuh"
#include "ops/ops.h"

namespace nsa::cuda {

namespace {

struct Update {
  float *w, *m, *v;
  bf16* copy;  ///< null: none
  const float* grad;
  const std::int32_t* ranges;  ///< (R, 2): end in units of kAdamWRange, decays
  std::int64_t R;
  AdamWStep step;

  /// Does weight decay apply to parameter i? The first range that ends behind it says so.
  NSA_DEVICE bool decays(std::int64_t i) const {
    std::int64_t low = 0, high = R - 1;
    while (low < high) {
      const std::int64_t middle = (low + high) / 2;
      if (ranges[2 * middle] * kAdamWRange > i)
        high = middle;
      else
        low = middle + 1;
    }
    return ranges[2 * low + 1] != 0;
  }

  template <int W>
  NSA_DEVICE void at(std::int64_t i) const {
    const float decay = decays(i) ? step.weight_decay : 0.0f;
    float w_i[W], m_i[W], v_i[W], g_i[W];
    load_floats<W>(w_i, w + i);
    load_floats<W>(m_i, m + i);
    load_floats<W>(v_i, v + i);
    load_floats<W>(g_i, grad + i);
    for (int k = 0; k < W; ++k) {
      const float g = step.grad_scale * g_i[k];
      m_i[k] = step.beta1 * m_i[k] + step.rest1 * g;
      v_i[k] = step.beta2 * v_i[k] + step.rest2 * g * g;
      const float update = m_i[k] * step.m_scale / (sqrtf(v_i[k] * step.v_scale) + step.eps);
      w_i[k] -= step.lr * (decay * w_i[k] + update);
    }
    store_floats<W>(w + i, w_i);
    store_floats<W>(m + i, m_i);
    store_floats<W>(v + i, v_i);
    if (!copy) return;
    for (int k = 0; k < W; ++k) copy[i + k] = from_float<bf16>(w_i[k]);
  }
};

}  // namespace

void adamw(Device& dev, InOut w, InOut m, InOut v, Out copy, In grad, In ranges, const AdamWStep& step) {
  if (dev.planning()) return;
  const Update f{w.raw<float>(),    m.raw<float>(),
                 v.raw<float>(),    copy ? copy.raw<bf16>() : nullptr,
                 grad.raw<float>(), ranges.raw<std::int32_t>(),
                 ranges.dim(0),     step};
  launch_elements<float>("adamw", w.numel(), aligned_for_packs<float>(0, f.w, f.m, f.v, f.grad), f);
}

}  // namespace nsa::cuda
