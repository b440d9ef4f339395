#include "train/silence.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "core/text.h"

namespace nsa {

namespace {

constexpr std::array<const char*, 3> kNames{"compressed", "selected", "window"};
constexpr std::size_t kCmp = 0;
constexpr double kShut = 0.1, kEven = 0.98;  // of a mean gate, of the entropy

/// "layer 3", "layers 0-2, 5"
std::string layers_in_words(const std::vector<std::size_t>& layers) {
  std::string out = layers.size() == 1 ? "layer " : "layers ";
  for (std::size_t i = 0, end = 0; i < layers.size(); i = end) {
    for (end = i + 1; end < layers.size() && layers[end] == layers[end - 1] + 1;) ++end;
    out += fmt::format("{}{}", i ? ", " : "", layers[i]);
    if (end - i > 1) out += fmt::format("-{}", layers[end - 1]);
  }
  return out;
}

/// The likely causes, as far as the numbers tell them apart.
std::string cause(const Config& config, std::size_t branch, const LayerLook& look) {
  const AttentionConfig& a = config.model.attention;
  if (branch == kCmp && config.data.sequence_length < a.compress_block) {
    return fmt::format("sequences of {} tokens are shorter than compress_block {}, so no query sees a block",
                       config.data.sequence_length, a.compress_block);
  }
  if (look.gate[branch] < kShut) {
    return "its gate is nearly shut: likely the branch had nothing to give while the gates learnt (too small initial "
           "values), or train.optimizer.lr is too high or its warm-up too short";
  }
  std::string out = "its gate is open, so its values are small: likely ";
  if (branch == kCmp && look.entropy > kEven) out += "its attention averages all blocks, as it is spread evenly, or ";
  if (config.model.init_std > 0) {
    out += fmt::format(
        "model.init_std={} is too small for {} (0: by fan-in), or ", config.model.init_std,
        branch == kCmp && a.compressor == Compressor::mlp ? "two layers of compressor in a row" : "its projections");
  }
  return out + "train.optimizer.lr is too low for them to grow";
}

std::string sentence(const Config& config, std::int64_t step, std::size_t branch,
                     const std::vector<std::size_t>& layers, const std::vector<LayerLook>& looks) {
  const auto share = [&](std::size_t l) { return looks[l].share()[branch]; };
  const std::size_t worst =
      *std::min_element(layers.begin(), layers.end(), [&](auto a, auto b) { return share(a) < share(b); });
  const LayerLook& look = looks[worst];
  const std::size_t other = branch == 0 ? 1 : 0, another = branch == 2 ? 1 : 2;
  return fmt::format(
      "{}: the {} branch is silent: its share of the gated output was below {} at {} looks in a row; at step {} layer "
      "{} had {}, rms {:.2g} beside {:.2g} ({}) and {:.2g} ({}), mean gate {:.2f}; {}",
      layers_in_words(layers), kNames[branch], percent(kSilentShare, 0), kSilentLooks, step, worst,
      percent(share(worst), 2), look.rms[branch], look.rms[other], kNames[other], look.rms[another], kNames[another],
      look.gate[branch], cause(config, branch, look));
}

}  // namespace

std::vector<std::string> Silence::observe(std::int64_t step, const std::vector<LayerLook>& layers) {
  branches_.resize(layers.size());
  std::vector<std::string> sentences;
  if (step <= config_.train.schedule.warmup_steps) return sentences;
  for (std::size_t b = 0; b < 3; ++b) {
    std::vector<std::pair<std::string, std::vector<std::size_t>>> silent;  // layers by cause
    for (std::size_t l = 0; l < layers.size(); ++l) {
      Branch& branch = branches_[l][b];
      branch.looks = layers[l].share()[b] < kSilentShare ? branch.looks + 1 : 0;
      if (branch.looks < kSilentLooks || std::exchange(branch.said, true)) continue;
      const std::string why = cause(config_, b, layers[l]);
      auto found = std::find_if(silent.begin(), silent.end(), [&](const auto& s) { return s.first == why; });
      if (found == silent.end()) found = silent.insert(found, {why, {}});
      found->second.push_back(l);
    }
    for (const auto& [why, which] : silent) sentences.push_back(sentence(config_, step, b, which, layers));
  }
  return sentences;
}

}  // namespace nsa
