#include "train/silence.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "core/text.h"

namespace nsa {

namespace {

constexpr std::array<const char*, 3> kNames{"compressed", "selected", "window"};
constexpr std::size_t kCmp = 0, kSelection = 3;  // 0, 1, 2: the branches
constexpr double kShut = 0.1, kEven = 0.98;      // of a mean gate, of the entropy

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

/// How much of what chance misses the selection finds; NaN when no query chooses.
double gain(const LayerLook& look) { return (look.covered - look.chance) / (1 - look.chance); }

bool is_silent(const LayerLook& look, std::size_t part) {
  return part == kSelection ? gain(look) < kBlindGain : look.share()[part] < kSilentShare;
}

/// Why numbers stay small.
std::string small_because(const Config& config, bool compressor, const char* others) {
  const bool mlp = config.model.attention.compressor == Compressor::mlp;
  std::string out = "likely ";
  if (config.model.init_std > 0) {
    out += fmt::format("model.init_std={} is too small for {} (0: by fan-in), or ", config.model.init_std,
                       compressor && mlp ? "two layers of compressor in a row" : others);
  }
  return out + "train.optimizer.lr is too low for them to grow";
}

/// The likely causes, as far as the numbers tell them apart.
std::string cause(const Config& config, std::size_t part, const LayerLook& look) {
  const AttentionConfig& a = config.model.attention;
  if (part == kSelection) {
    if (look.entropy < kEven) return "the attention is not spread evenly, but over blocks that are always selected";
    return "the attention is spread evenly, as compressed keys or queries are small: " +
           small_because(config, true, "the projections") +
           (a.qk_norm ? "" : "; model.attention.qk_norm=true gives them a size");
  }
  if (part == kCmp && config.data.sequence_length < a.compress_block) {
    return fmt::format("sequences of {} tokens are shorter than compress_block {}, so no query sees a block",
                       config.data.sequence_length, a.compress_block);
  }
  if (look.gate[part] < kShut) {
    return "its gate is nearly shut: likely the branch had nothing to give while the gates learnt (too small initial "
           "values), or train.optimizer.lr is too high or its warm-up too short";
  }
  std::string out = "its gate is open, so its values are small: ";
  if (part == kCmp && look.entropy > kEven) out += "its attention averages all blocks, as it is spread evenly; ";
  return out + small_because(config, part == kCmp, "its projections");
}

std::string branch_sentence(std::int64_t step, std::size_t branch, std::size_t layer, const LayerLook& look) {
  const std::size_t other = branch == 0 ? 1 : 0, another = branch == 2 ? 1 : 2;
  return fmt::format(
      "the {} branch is silent: its share of the gated output was below {} at {} looks in a row; at step {} layer {} "
      "had "
      "{}, rms {:.2g} beside {:.2g} ({}) and {:.2g} ({}), mean gate {:.2f}",
      kNames[branch], percent(kSilentShare, 0), kSilentLooks, step, layer, percent(look.share()[branch], 2),
      look.rms[branch], look.rms[other], kNames[other], look.rms[another], kNames[another], look.gate[branch]);
}

std::string selection_sentence(std::int64_t step, std::size_t layer, const LayerLook& look) {
  return fmt::format(
      "the selection is blind, so the selected branch reads arbitrary blocks: at {} looks in a row its blocks were "
      "less "
      "than {} better than chance; at step {} layer {}'s held {} of the compression attention, as many drawn at random "
      "hold {}, entropy {:.3f}",
      kSilentLooks, percent(kBlindGain, 0), step, layer, percent(look.covered, 2), percent(look.chance, 2),
      look.entropy);
}

std::string sentence(const Config& config, std::int64_t step, std::size_t part, const std::vector<std::size_t>& layers,
                     const std::vector<LayerLook>& looks) {
  const auto size = [&](std::size_t l) { return part == kSelection ? gain(looks[l]) : looks[l].share()[part]; };
  const std::size_t worst =
      *std::min_element(layers.begin(), layers.end(), [&](auto a, auto b) { return size(a) < size(b); });
  const LayerLook& look = looks[worst];
  return fmt::format(
      "{}: {}; {}", layers_in_words(layers),
      part == kSelection ? selection_sentence(step, worst, look) : branch_sentence(step, part, worst, look),
      cause(config, part, look));
}

}  // namespace

std::vector<std::string> Silence::observe(std::int64_t step, const std::vector<LayerLook>& layers) {
  parts_.resize(layers.size());
  std::vector<std::string> sentences;
  if (step <= config_.train.schedule.warmup_steps) return sentences;
  for (std::size_t part = 0; part < 4; ++part) {
    std::vector<std::pair<std::string, std::vector<std::size_t>>> silent;  // layers by cause
    for (std::size_t l = 0; l < layers.size(); ++l) {
      Part& state = parts_[l][part];
      state.looks = is_silent(layers[l], part) ? state.looks + 1 : 0;
      if (state.looks < kSilentLooks || std::exchange(state.said, true)) continue;
      const std::string why = cause(config_, part, layers[l]);
      auto found = std::find_if(silent.begin(), silent.end(), [&](const auto& s) { return s.first == why; });
      if (found == silent.end()) found = silent.insert(found, {why, {}});
      found->second.push_back(l);
    }
    for (const auto& [why, which] : silent) sentences.push_back(sentence(config_, step, part, which, layers));
  }
  return sentences;
}

}  // namespace nsa
