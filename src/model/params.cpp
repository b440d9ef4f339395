#include "model/params.h"

#include <algorithm>
#include <cmath>

#include "core/parallel.h"
#include "core/rng.h"

namespace nsa {

namespace {

// Elements a tensor takes in a slab: every tensor starts on a cache line.
std::int64_t padded(const Shape& shape) {
  const std::int64_t line = static_cast<std::int64_t>(Arena::kAlign / sizeof(float));
  return (shape.numel() + line - 1) / line * line;
}

// Views of `slab` for every parameter, in order, stored through `slot`.
void carve(std::deque<Param>& list, const Tensor& slab, Tensor Param::*slot) {
  std::int64_t offset = 0;
  for (Param& p : list) {
    p.*slot = Tensor{slab.data ? slab.f32() + offset : nullptr, DType::f32, p.shape};
    offset += padded(p.shape);
  }
}

}  // namespace

Param& Params::declare(const std::string& name, const Shape& shape, Init init) {
  Param p;
  p.name = name;
  p.shape = shape;
  p.init = init;
  list_.push_back(std::move(p));
  return list_.back();
}

void Params::allocate(Device& dev, With with) {
  std::int64_t total = 0;
  for (const Param& p : list_) total += padded(p.shape);
  carve(list_, dev.params.take(DType::f32, {total}, Purpose::weights), &Param::w);
  if (with == With::weights) return;
  grads_ = dev.params.take(DType::f32, {total}, Purpose::gradients);
  carve(list_, grads_, &Param::grad);
  carve(list_, dev.params.take(DType::f32, {total}, Purpose::optimizer), &Param::m);
  carve(list_, dev.params.take(DType::f32, {total}, Purpose::optimizer), &Param::v);
}

void Params::initialise(std::uint64_t seed, double init_std, std::int64_t num_layers) {
  for (Param& p : list_) {
    float* w = p.w.f32();
    const double std =
        p.init == Init::residual ? init_std / std::sqrt(2.0 * static_cast<double>(num_layers)) : init_std;
    const Rng rng(seed, "init " + p.name);
    const Init init = p.init;
    parallel_ranges(available_cores(), p.w.numel(), 1 << 16, [&](std::int64_t begin, std::int64_t end, int) {
      if (init == Init::ones || init == Init::zeros) {
        std::fill(w + begin, w + end, init == Init::ones ? 1.0f : 0.0f);
      } else {
        fill_normal(rng, std, begin, end, w + begin);
      }
    });
  }
}

std::int64_t Params::count() const {
  std::int64_t n = 0;
  for (const Param& p : list_) n += p.shape.numel();
  return n;
}

std::vector<NamedTensor> Params::weights() const {
  std::vector<NamedTensor> out;
  for (const Param& p : list_) out.push_back({p.name, p.w});
  return out;
}

std::vector<NamedTensor> Params::moments() const {
  std::vector<NamedTensor> out;
  for (const Param& p : list_) {
    out.push_back({p.name + ".m", p.m});
    out.push_back({p.name + ".v", p.v});
  }
  return out;
}

}  // namespace nsa
