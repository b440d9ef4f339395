#include "train/look.h"

#include <cmath>

#include "core/transfer.h"

namespace nsa {

namespace {

// Of the compression attention only every 17th query is looked at: 17 divides neither a stride nor a block, so that
// queries at every place of their block are asked.
constexpr std::int64_t kQueries = 17;

}  // namespace

// A row: sums of the gates, mean squares of the branches' gated outputs, means of the selection (nsa.inc).
Tensor take_looks(Device& dev, const Config& config) {
  if (config.model.attention.type != AttentionType::nsa) return {};
  return dev.params.take(DType::f32, {config.model.num_layers, 9}, Purpose::activations);
}

LookAtBlock look_at_branches(Device& dev, In looks, const Config& config) {
  return [&dev, looks, shape = nsa_shape(config.model.attention)](std::int64_t layer, const Block::Saved& saved) {
    const NsaAttention::Saved& s = *saved.nsa();
    const Tensor row = looks.rows(layer, layer + 1).view({9});
    const Shape by_head{s.gates.dim(0), s.o.dim(2), s.o.dim(3)};
    op::sum_rows(dev, row.rows(0, 3), s.gates.view({s.gates.numel() / 3, 3}));
    op::look_at_outputs(dev, row.rows(3, 6), s.gates, s.o_cmp.view(by_head), s.o_slc.view(by_head),
                        s.o_win.view(by_head));
    op::look_at_selection(dev, row.rows(6, 9), s.q, s.kc, s.lse_cmp, s.selected, shape, kQueries);
  };
}

std::vector<LayerLook> looked(In looks, const Config& config) {
  const std::vector<float> numbers = downloaded<float>(looks);
  const auto rows =
      static_cast<double>(config.train.micro_batch * config.data.sequence_length * config.model.attention.num_heads);
  std::vector<LayerLook> layers;
  for (std::size_t at = 0; at < numbers.size(); at += 9) {
    const auto number = [&](std::size_t k) { return static_cast<double>(numbers[at + k]); };
    LayerLook look;
    for (std::size_t b = 0; b < 3; ++b) look.gate[b] = number(b) / rows, look.rms[b] = std::sqrt(number(3 + b));
    look.entropy = number(6), look.covered = number(7), look.chance = number(8);
    layers.push_back(look);
  }
  return layers;
}

}  // namespace nsa
