#include "model/params.h"

#include <algorithm>
#include <cmath>

#include "core/parallel.h"
#include "core/rng.h"
#include "core/transfer.h"
#include "ops/ops.h"

namespace nsa {

namespace {

static_assert(kAlign == kAdamWRange * sizeof(float));

// Elements a tensor takes in a slab.
std::int64_t padded(const Shape& shape) { return (shape.numel() + kAdamWRange - 1) / kAdamWRange * kAdamWRange; }

double initial_std(const Param& p, double init_std, std::int64_t num_layers) {
  const auto fan_in = static_cast<double>(p.shape[p.shape.rank() - 1]);
  const double std = init_std > 0 ? init_std : p.gain / std::sqrt(fan_in);
  return p.init == Init::residual ? std / std::sqrt(2.0 * static_cast<double>(num_layers)) : std;
}

void centre_rows(const Tensor& t) {
  std::vector<float> x = downloaded<float>(t);
  const auto n = static_cast<std::size_t>(t.dim(t.shape.rank() - 1));
  for (std::size_t row = 0; row < x.size(); row += n) {
    double sum = 0;
    for (std::size_t i = 0; i < n; ++i) sum += static_cast<double>(x[row + i]);
    const auto mean = static_cast<float>(sum / static_cast<double>(n));
    for (std::size_t i = 0; i < n; ++i) x[row + i] -= mean;
  }
  upload(t, x.data());
}

// Elements [begin, end) of a slab as a tensor.
Tensor part(const Tensor& slab, std::int64_t begin, std::int64_t end) { return slab.rows(begin, end); }

}  // namespace

Param& Params::declare(const std::string& name, const Shape& shape, Init init, double gain) {
  Param p;
  p.name = name;
  p.shape = shape;
  p.init = init;
  p.gain = gain;
  list_.push_back(std::move(p));
  return list_.back();
}

// Views of `slab` for every parameter, in order.
void Params::carve(const Tensor& slab, Tensor Param::*slot) {
  std::int64_t offset = 0;
  for (Param& p : list_) {
    p.*slot = part(slab, offset, offset + p.shape.numel()).view(p.shape);
    offset += padded(p.shape);
  }
}

// Memory comes as it is, and sums over a whole slab must not meet a NaN between two tensors.
void Params::fill_padding(Device& dev, const Tensor& slab) const {
  std::int64_t offset = 0;
  for (const Param& p : list_) {
    const std::int64_t end = offset + padded(p.shape);
    op::fill(dev, part(slab, offset + p.shape.numel(), end), 0.0f);
    offset = end;
  }
}

// Neighbours with the same decay are one range.
void Params::take_ranges(Device& dev) {
  std::vector<std::int32_t> ranges;
  std::int64_t end = 0;
  for (const Param& p : list_) {
    end += padded(p.shape) / kAdamWRange;
    const std::int32_t decays = p.decay() ? 1 : 0;
    if (ranges.empty() || ranges.back() != decays) ranges.insert(ranges.end(), {0, decays});
    ranges[ranges.size() - 2] = static_cast<std::int32_t>(end);
  }
  const auto R = static_cast<std::int64_t>(ranges.size() / 2);
  slabs_.ranges = dev.params.take(DType::i32, {R, 2}, Purpose::optimizer);
  if (slabs_.ranges.data) upload(slabs_.ranges, ranges.data());
}

void Params::allocate(Device& dev, With with, DType type) {
  std::int64_t total = 0;
  for (const Param& p : list_) total += padded(p.shape);
  const auto take = [&](DType slab_type, Purpose purpose, Tensor Param::*slot) {
    const Tensor slab = dev.params.take(slab_type, {total}, purpose);
    carve(slab, slot);
    if (slab.data) fill_padding(dev, slab);
    return slab;
  };
  slabs_.master = take(DType::f32, Purpose::weights, &Param::master);
  if (type == DType::f32) {
    for (Param& p : list_) p.w = p.master;
  } else {
    slabs_.copy = take(type, Purpose::weights, &Param::w);
  }
  if (with == With::weights) return;
  slabs_.grad = take(DType::f32, Purpose::gradients, &Param::grad);
  slabs_.m = take(DType::f32, Purpose::optimizer, &Param::m);
  slabs_.v = take(DType::f32, Purpose::optimizer, &Param::v);
  take_ranges(dev);
}

void Params::initialise(Device& dev, std::uint64_t seed, double init_std, std::int64_t num_layers) {
  constexpr std::int64_t kPiece = 1 << 16;
  for (const Param& p : list_) {
    if (p.init == Init::ones || p.init == Init::zeros) {
      op::fill(dev, p.master, p.init == Init::ones ? 1.0f : 0.0f);
      continue;
    }
    const double std = initial_std(p, init_std, num_layers);
    const Rng rng(seed, "init " + p.name);
    std::vector<std::vector<float>> pieces(static_cast<std::size_t>(std::max(1, dev.threads)));
    parallel_ranges(dev.threads, p.shape.numel(), kPiece, [&](std::int64_t begin, std::int64_t end, int thread) {
      std::vector<float>& piece = pieces[static_cast<std::size_t>(thread)];
      piece.resize(kPiece);
      fill_normal(rng, std, begin, end, piece.data());
      const std::size_t size = sizeof(float);
      upload_part(p.master, static_cast<std::size_t>(begin) * size, piece.data(),
                  static_cast<std::size_t>(end - begin) * size);
    });
    if (p.init == Init::centred && init_std == 0) centre_rows(p.master);
  }
  for (const Tensor* moments : {&slabs_.m, &slabs_.v})
    if (*moments) op::fill(dev, *moments, 0.0f);
  refresh_copies(dev);
}

void Params::refresh_copies(Device& dev) const {
  if (slabs_.copy) op::copy(dev, slabs_.copy, slabs_.master);
}

std::int64_t Params::count() const {
  std::int64_t n = 0;
  for (const Param& p : list_) n += p.shape.numel();
  return n;
}

std::vector<NamedTensor> Params::weights() const {
  std::vector<NamedTensor> out;
  for (const Param& p : list_) out.push_back({p.name, p.master});
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
