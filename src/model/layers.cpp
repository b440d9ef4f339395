#include "model/layers.h"

namespace nsa {

Mlp::Saved Mlp::take(Device& dev, std::int64_t N, DType type) const {
  const Shape shape{N, gate.w->shape[0]};
  Saved s;
  s.gate = dev.work.take(type, shape, Purpose::activations);
  s.up = dev.work.take(type, shape, Purpose::activations);
  s.act = dev.work.take(type, shape, Purpose::activations);
  return s;
}

void Mlp::fill(Device& dev, const Saved& s, In x) const {
  gate.forward(dev, s.gate, x);
  up.forward(dev, s.up, x);
  op::swiglu_forward(dev, s.act, s.gate, s.up);
}

void Mlp::backward(Device& dev, Out dx, In dy, In x, const Saved& s) const {
  ArenaScope scope(dev.work);
  const Tensor d_act = dev.work.take(x.dtype, s.act.shape, Purpose::activations);
  down.backward(dev, d_act, dy, s.act);
  op::swiglu_backward(dev, s.gate, s.up, d_act, s.gate, s.up);  // in place: Saved now holds d_gate and d_up
  gate.backward(dev, dx, s.gate, x);
  up.backward(dev, dx, s.up, x, Write::add);
}

}  // namespace nsa
