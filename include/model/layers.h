// The small layers: a parameter or two and the ops that use them. Every backward overwrites d<input> (unless a Write
// says otherwise) and adds into Param::grad.
#pragma once

#include "model/params.h"
#include "ops/ops.h"

namespace nsa {

/// y (N,O) = x (N,I) w (O,I)^T
struct Linear {
  Param* w = nullptr;
  void forward(Device& dev, Out y, In x, Write mode = Write::overwrite) const {
    op::matmul_forward(dev, y, x, w->w, mode);
  }
  /// dx (N,I) = [dx +] dy w; w.grad += dy^T x
  void backward(Device& dev, Out dx, In dy, In x, Write mode = Write::overwrite) const {
    op::matmul_backward_weight(dev, w->grad, dy, x);
    op::matmul_backward_input(dev, dx, dy, w->w, mode);
  }
};

/// RMSNorm over the last dim of x, seen as (rows, C).
struct Norm {
  Param* w = nullptr;
  float eps = 1e-5f;
  void forward(Device& dev, Out y, Saved rstd, In x) const { op::rmsnorm_forward(dev, y, rstd, x, w->w, eps); }
  void backward(Device& dev, Out dx, In dy, In x, In rstd, Write mode = Write::overwrite) const {
    op::rmsnorm_backward(dev, dx, w->grad, dy, x, w->w, rstd, mode);
  }
};

/// SwiGLU feed-forward: down(silu(gate(x)) * up(x)).
struct Mlp {
  Linear gate, up, down;

  struct Saved {
    Tensor gate, up, act;  // (N,F) each
  };
  Saved take(Device& dev, std::int64_t N, DType type) const;
  /// Everything but the last product: fills Saved from x (N,C).
  void fill(Device& dev, const Saved& s, In x) const;
  /// x_out (N,C) += down(act)
  void add_output(Device& dev, InOut x_out, const Saved& s) const { down.forward(dev, x_out, s.act, Write::add); }
  /// dx (N,C) from dy (N,C). Consumes s: gate and up become their gradients.
  void backward(Device& dev, Out dx, In dy, In x, const Saved& s) const;
};

}  // namespace nsa
