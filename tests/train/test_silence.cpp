// Looks at the branches in whole runs, and the sentence about a silent one.
#include "train/silence.h"

#include <nlohmann/json.hpp>

#include "ref/compare.h"
#include "small_run.h"
#include "train/look.h"
#include "train/metrics.h"
#include "train/step.h"

namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

Config config_of(std::int64_t warmup) {
  Config c;
  c.model.attention.type = AttentionType::nsa;
  c.data.sequence_length = 1024;
  c.model.init_std = 0.02;
  c.train.schedule.warmup_steps = warmup;
  return c;
}

LayerLook look(double cmp, double slc, double win, double gate = 0.5, double entropy = 0.7) {
  LayerLook l;
  l.gate = {gate, gate, gate}, l.rms = {cmp, slc, win}, l.entropy = entropy;
  l.covered = 0.6, l.chance = 0.4;
  return l;
}

/// The sentences of `looks` equal looks, every tenth step from `step` on.
std::vector<std::string> after(Silence& silence, int looks, const std::vector<LayerLook>& layers,
                               std::int64_t step = 10) {
  std::vector<std::string> all;
  for (int i = 0; i < looks; ++i, step += kLookEvery)
    for (const std::string& s : silence.observe(step, layers)) all.push_back(s);
  return all;
}

std::size_t count(const std::string& text, const std::string& what) {
  std::size_t n = 0;
  for (std::size_t at = 0; (at = text.find(what, at)) != std::string::npos; ++at) ++n;
  return n;
}

Config run_config(const TempDir& dir, const std::string& name) {
  Config c = tiny_config(dir.path(), AttentionType::nsa, name);
  c.train.steps = 70;
  c.eval.every = 0;
  c.threads = 1;  // so small that a second thread only waits
  c.model.init_std = 0.2;
  return c;
}
/// No query of 24 tokens sees a block of 32: the compressed branch gives 0.
Config silent_config(const TempDir& dir, const std::string& name) {
  Config c = run_config(dir, name);
  AttentionConfig& a = c.model.attention;
  a.compress_block = a.select_block = 32, a.compress_stride = 16;
  check(c);
  return c;
}

}  // namespace

TEST_CASE("shares of the gated output", "[silence]") {
  CHECK(look(1, 2, 1).share() == std::array<double, 3>{0.25, 0.5, 0.25});
  CHECK(look(0, 0, 0).share() == std::array<double, 3>{0, 0, 0});
  CHECK(std::isnan(look(kNan, 1, 1).share()[1]));
}

TEST_CASE("a silent branch is one sentence with layers, numbers and cause, and is said once", "[silence]") {
  Silence silence(config_of(0));
  const std::vector<LayerLook> layers{look(1e-4, 0.03, 0.02), look(1e-2, 0.03, 0.02), look(2e-4, 0.03, 0.02),
                                      look(2e-4, 0.03, 0.02)};
  CHECK(after(silence, kSilentLooks - 1, layers).empty());
  const auto said = silence.observe(50, layers);
  REQUIRE(said.size() == 1);
  INFO(said[0]);
  CHECK(
      said[0].rfind("layers 0, 2-3: the compressed branch is silent: its share of the gated output was below 1 % at 5 "
                    "looks in a row; at step 50 layer 0 had 0.20 %, rms 0.0001 beside 0.03 (selected) and 0.02 "
                    "(window), mean gate 0.50; its gate is open, so its values are small: likely ",
                    0) == 0);
  CHECK(contains(said[0], "two layers of compressor"));
  CHECK(after(silence, 20, layers, 60).empty());
}

TEST_CASE("a healthy branch, one that wakes up, and one in its warm-up are not silent", "[silence]") {
  Silence healthy(config_of(0)), waking(config_of(0)), warming(config_of(100)), diverged(config_of(0));
  CHECK(after(healthy, 50, {look(6e-4, 0.03, 0.02)}).empty());  // 1.2 %
  for (int i = 0; i < 10; ++i) {
    CHECK(after(waking, kSilentLooks - 1, {look(1e-4, 0.03, 0.02)}).empty());
    CHECK(after(waking, 1, {look(1e-3, 0.03, 0.02)}).empty());
  }
  CHECK(after(warming, 10 + kSilentLooks - 1, {look(1e-4, 0.03, 0.02)}).empty());
  CHECK(after(warming, 1, {look(1e-4, 0.03, 0.02)}, 150).size() == 1);
  CHECK(after(diverged, 50, {look(kNan, kNan, kNan)}).empty());
}

TEST_CASE("the cause follows the numbers", "[silence]") {
  Config c = config_of(0);
  const auto said = [&](const LayerLook& l) {
    Silence silence(c);
    const auto all = after(silence, kSilentLooks, {l});
    REQUIRE(all.size() == 1);
    return all[0];
  };
  CHECK(contains(said(look(1e-4, 0.03, 0.02, 0.02)), "mean gate 0.02; its gate is nearly shut"));
  CHECK(contains(said(look(1e-4, 0.03, 0.02, 0.5, 0.999)), "spread evenly"));
  const std::string window = said(look(0.01, 0.03, 1e-5));
  CHECK(contains(window, "the window branch"));
  CHECK(contains(window, "model.init_std=0.02 is too small for its projections (0: by fan-in)"));
  c.model.init_std = 0;
  CHECK(!contains(said(look(0.01, 0.03, 1e-5)), "init_std"));
  c.data.sequence_length = 20;
  CHECK(contains(said(look(0, 0.03, 0.02)), "sequences of 20 tokens are shorter than compress_block 32"));
}

TEST_CASE("a selection that is no better than chance is blind", "[silence]") {
  Config c = config_of(0);
  LayerLook even = look(0.01, 0.03, 0.02, 0.5, 0.9999), seeing = even, forced = even, none = even;
  even.covered = 0.4239, even.chance = 0.4234;
  seeing.covered = 0.43, seeing.chance = 0.4234;  // 1.1 % of what chance misses
  forced.covered = 0.9001, forced.chance = 0.9, forced.entropy = 0.5;
  none.covered = none.chance = kNan;  // every block is selected
  Silence silence(c), normed(c);
  const auto said = after(silence, kSilentLooks, {even, seeing, even, forced, none});
  REQUIRE(said.size() == 2);
  INFO(said[0] << "\n" << said[1]);
  CHECK(
      said[0].rfind("layers 0, 2: the selection is blind, so the selected branch reads arbitrary blocks: at 5 looks in "
                    "a row its blocks were less than 1 % better than chance; at step 50 layer 0's held 42.39 % of the "
                    "compression attention, as many drawn at random hold 42.34 %, entropy 1.000; the attention is "
                    "spread evenly, as compressed keys or queries are small: likely model.init_std=0.02 is too small "
                    "for two layers of compressor in a row (0: by fan-in), or ",
                    0) == 0);
  CHECK(contains(said[0], "; model.attention.qk_norm=true gives them a size"));
  CHECK(contains(said[1], "layer 3: "));
  CHECK(contains(said[1], "not spread evenly, but over blocks that are always selected"));
  CHECK(after(silence, 20, {even, seeing, even, forced, none}, 60).empty());
}

TEST_CASE("layers that fall silent for different reasons get a sentence each", "[silence]") {
  Silence silence(config_of(0));
  const auto said = after(silence, kSilentLooks, {look(1e-4, 0.03, 0.02, 0.5), look(1e-4, 0.03, 0.02, 0.01)});
  REQUIRE(said.size() == 2);
  CHECK(said[0].rfind("layer 0: ", 0) == 0);
  CHECK(said[1].rfind("layer 1: ", 0) == 0);
}

TEST_CASE("looks are read back from metrics.jsonl; older records and other lines are passed over", "[silence]") {
  LayerLook l = look(1e-4, 0.03, 0.02);
  l.covered = kNan, l.chance = kNan;
  const auto looks =
      looks_in("{\"type\":\"gates\",\"step\":10,\"layers\":[[0.1,0.2,0.3]]}\n" + json_gates(20, {l, l}) +
               "\n{\"type\":\"step\",\"step\":21}\n" + json_gates(30, {l}) + "\n" + json_gates(40, {l}).substr(0, 50));
  REQUIRE(looks.size() == 2);
  CHECK(looks[0].first == 20);
  CHECK(looks[0].second.size() == 2);
  CHECK(looks[1].second[0].rms == l.rms);
  CHECK(looks[1].second[0].gate == l.gate);
  CHECK(looks[1].second[0].entropy == 0.7);
  CHECK(std::isnan(looks[1].second[0].covered));
}

TEST_CASE("a run with a silent branch says so once, however often it is stopped; a healthy one does not", "[silence]") {
  const TempDir dir;
  write_shards(dir.path());
  const Config silent = silent_config(dir, "silent"), stopped = silent_config(dir, "stopped"),
               healthy = run_config(dir, "healthy");
  train_with_stops(silent, {});
  train_with_stops(stopped, {33, 52, 61});
  train_with_stops(healthy, {});
  const auto log = [](const Config& c) { return read_file(run_dir(c) + "/run.log"); };
  const std::string sentence =
      "warning: layers 0-1: the compressed branch is silent: its share of the gated output was below 1 % at 5 looks in "
      "a row; at step 50 layer 0 had 0.00 %";
  CHECK(count(log(silent), sentence) == 1);
  CHECK(count(log(silent), "sequences of 24 tokens are shorter than compress_block 32") == 1);
  CHECK(count(log(stopped), sentence) == 1);
  CHECK(records(stopped, "gates") == records(silent, "gates"));
  CHECK(count(log(healthy), "is silent") == 0);
}

TEST_CASE("a look reads what the blocks saved, and changes no bit of the gradients", "[silence]") {
  const TempDir dir;
  Config c = run_config(dir, "look");
  c.device = DeviceType::cpu;
  const auto gradients = [&](bool looking, std::vector<LayerLook>* want, std::vector<LayerLook>* got) {
    test::TestDevice dev(2);
    Gpt gpt(dev, c.model, kT, Params::With::training);
    gpt.params().initialise(dev, 1, c.model.init_std, c.model.num_layers);
    const BatchBuffers batch(dev, c);
    std::vector<std::int32_t> tokens;
    for (std::int32_t i = 0; i < batch.tokens.numel(); ++i) tokens.push_back(i * i % static_cast<std::int32_t>(kVocab));
    test::set(batch.tokens, tokens);
    test::set(batch.targets, tokens);
    op::fill(dev, gpt.params().slabs().grad, 0.0f);
    const LookAtBlock look = look_at_branches(dev, batch.looks, c);
    gpt.train(dev, batch.losses, batch.tokens, batch.targets, 1.0f, Recompute::none,
              [&](std::int64_t layer, const Block::Saved& saved) {
                if (!looking) return;
                look(layer, saved);
                const NsaAttention::Saved& s = *saved.nsa();
                const std::vector<double> gates = test::values(s.gates);
                LayerLook l;
                for (std::size_t b = 0; b < 3; ++b) {
                  const std::vector<double> o = test::values(b == 0 ? s.o_cmp : b == 1 ? s.o_slc : s.o_win);
                  const std::size_t Dv = o.size() / (gates.size() / 3);
                  for (std::size_t i = 0; i < o.size(); ++i)
                    l.rms[b] += std::pow(gates[i / Dv * 3 + b] * o[i], 2) / static_cast<double>(o.size());
                  l.rms[b] = std::sqrt(l.rms[b]);
                  for (std::size_t i = b; i < gates.size(); i += 3)
                    l.gate[b] += gates[i] / static_cast<double>(gates.size() / 3);
                }
                want->push_back(l);
              });
    if (looking) *got = looked(batch.looks, c);
    return test::values(gpt.params().slabs().grad);
  };
  std::vector<LayerLook> want, got;
  CHECK(gradients(false, nullptr, nullptr) == gradients(true, &want, &got));
  REQUIRE(got.size() == 2);
  REQUIRE(want.size() == 2);
  for (std::size_t l = 0; l < 2; ++l)
    for (std::size_t b = 0; b < 3; ++b) {
      CHECK(got[l].rms[b] == Approx(want[l].rms[b]).epsilon(1e-5));
      CHECK(got[l].gate[b] == Approx(want[l].gate[b]).epsilon(1e-5));
    }
}

TEST_CASE("recomputation gives the same looks, in f32 and bf16; full attention has none", "[silence]") {
  const TempDir dir;
  write_shards(dir.path());
  for (Precision precision : {Precision::f32, Precision::bf16}) {
    const auto config = [&](const char* name) {
      Config c = run_config(dir, fmt::format("{}-{}", name, static_cast<int>(precision)));
      c.train.steps = 20;
      c.train.precision = precision;
      return c;
    };
    const Config keep = config("keep");
    Config recompute = config("recompute");
    recompute.train.recompute = Recompute::block;
    train_with_stops(keep, {});
    train_with_stops(recompute, {});
    REQUIRE(records(keep, "gates").size() == 2);
    CHECK(records(keep, "gates") == records(recompute, "gates"));
    const auto look = nlohmann::json::parse(records(keep, "gates")[1]);
    for (const char* field : {"layers", "entropy", "coverage", "output_rms", "output_share"})
      CHECK(look[field].size() == 2);
    for (const auto& entropy : look["entropy"]) CHECK((entropy > 0.1 && entropy <= 1.000001));
    for (const auto& coverage : look["coverage"])
      CHECK((coverage[0] > 0.3 && coverage[0] <= 1.000001 && coverage[1] > 0.3 && coverage[1] < 1));
    for (const auto& rms : look["output_rms"])
      for (const auto& branch : rms) CHECK(branch > 0);
  }
  const Config full = tiny_config(dir.path(), AttentionType::full, "full");
  train_with_stops(full, {});
  CHECK(records(full, "gates").empty());
}
