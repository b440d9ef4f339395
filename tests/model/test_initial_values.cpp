// Initial values by fan-in (docs/initial_values.md): what a layer computes before it has learnt anything does not
// depend on its sizes, and no branch of NSA starts silent.
#include "model/nsa_attention.h"
#include "ref/compare.h"

using namespace nsa;
using namespace nsa::test;

namespace {

struct Sizes {
  std::int64_t C, D, l;
};
// The corners of what configs use: width 64 to 4096, heads of 16 to 192, blocks of 4 to 64 tokens.
constexpr Sizes kSizes[] = {{64, 16, 4}, {64, 32, 64}, {256, 192, 4}, {1024, 64, 32}, {4096, 16, 16}, {4096, 192, 64}};

// In the second half of the tokens a query sees 64 to 128 compressed blocks, 4 blocks of 32 or more, and 128 tokens.
std::int64_t tokens_of(const Sizes& z) { return 128 * z.l / 2; }

ModelConfig config_of(const Sizes& z, Compressor compressor, bool qk_norm) {
  ModelConfig c;
  c.vocab_size = 16, c.hidden_size = z.C, c.num_layers = 4, c.intermediate_size = 16;
  AttentionConfig& a = c.attention;
  a.num_heads = 4, a.num_kv_heads = 2, a.head_dim = z.D, a.qk_norm = qk_norm, a.compressor = compressor;
  a.compress_block = z.l, a.compress_stride = z.l / 2;
  a.select_block = std::max<std::int64_t>(32, z.l), a.select_count = 4, a.window = 128;
  check(c);
  return c;
}

// One NSA layer at its initial values, on normed input: numbers of rms 1.
struct LayerAtStart {
  TestDevice dev{2, 1024, 512};
  std::int64_t T;
  Params params;
  NsaAttention layer;
  NsaAttention::Saved s;

  LayerAtStart(const ModelConfig& config, std::int64_t T_)
      : T(T_), layer(NsaAttention::declare(params, "layer.", config)) {
    params.allocate(dev, Params::With::weights, DType::f32);
    params.initialise(dev, 5, config.init_std, config.num_layers);
    const Tensor x = make(dev, {T, config.hidden_size}), rope = make(dev, {T, layer.config.head_dim / 2, 2});
    std::vector<float> numbers(static_cast<std::size_t>(x.numel()));
    fill_normal(Rng(9, "x"), 1.0, 0, x.numel(), numbers.data());
    upload(x, numbers.data());
    op::rope_table(dev, rope, config.rope_theta);
    s = layer.take(dev, {1, T, DType::f32});
    layer.fill(dev, s, x, rope);
  }
};

double rms(const std::vector<double>& x) {
  double sum = 0;
  for (double v : x) sum += v * v;
  return std::sqrt(sum / static_cast<double>(x.size()));
}
double rms(const Tensor& t) { return rms(values(t)); }

// rms of gate * output of branch b over the second half of the tokens, where every branch has enough to look at
double gated(const NsaAttention::Saved& s, const Tensor& o, std::size_t b) {
  const std::vector<double> gates = values(s.gates), x = values(o);  // (N,H,3), (1,N,H,D)
  const std::size_t D = x.size() / (gates.size() / 3);
  std::vector<double> late;
  for (std::size_t i = x.size() / 2; i < x.size(); ++i) late.push_back(x[i] * gates[i / D * 3 + b]);
  return rms(late);
}

// Mean of H(p) / log(blocks) of the compression attention, over the queries that see at least 8 blocks.
double entropy_share(const LayerAtStart& at) {
  const std::vector<double> q = values(at.s.q), kc = values(at.s.kc);
  const auto H = static_cast<std::size_t>(at.layer.config.num_heads), G = static_cast<std::size_t>(at.layer.config.G()),
             Hkv = H / G, D = static_cast<std::size_t>(at.layer.config.head_dim);
  double sum = 0, count = 0;
  for (std::size_t t = 0; t < static_cast<std::size_t>(at.T); t += static_cast<std::size_t>(at.layer.shape.l))
    for (std::size_t h = 0; h < H; ++h) {
      std::vector<double> e;
      double total = 0, entropy = 0;
      const auto l = static_cast<std::size_t>(at.layer.shape.l), d = static_cast<std::size_t>(at.layer.shape.d);
      for (std::size_t i = 0; i * d + l - 1 <= t; ++i) {
        double logit = 0;
        for (std::size_t c = 0; c < D; ++c) logit += q[(t * H + h) * D + c] * kc[(i * Hkv + h / G) * D + c];
        e.push_back(std::exp(logit / std::sqrt(static_cast<double>(D))));
        total += e.back();
      }
      if (e.size() < 8) continue;
      for (double p : e) entropy -= p / total * std::log(p / total);
      sum += entropy / std::log(static_cast<double>(e.size())), ++count;
    }
  return sum / count;
}

bool within(double factor, double a, double b) { return a < factor * b && b < factor * a; }

}  // namespace

TEST_CASE("by fan-in compressed keys and values start as large as the raw ones, and no branch starts silent",
          "[model]") {
  const Compressor compressor = GENERATE(Compressor::mlp, Compressor::linear, Compressor::mean);
  const Sizes z = GENERATE(from_range(std::begin(kSizes), std::end(kSizes)));
  const LayerAtStart at(config_of(z, compressor, false), tokens_of(z));
  INFO(kCompressors[static_cast<std::size_t>(compressor)] << ", width " << z.C << ", heads of " << z.D << ", l "
                                                          << z.l);
  for (const Tensor* raw : {&at.s.q, &at.s.k_slc, &at.s.k_win, &at.s.v_slc, &at.s.v_win})
    CHECK(rms(*raw) == Approx(1).epsilon(0.15));
  CHECK(within(2, rms(at.s.kc), rms(at.s.k_slc)));
  CHECK(within(2, rms(at.s.vc), rms(at.s.v_slc)));
  for (double gate : values(at.s.gates)) REQUIRE((gate > 0.2 && gate < 0.8));
  const double cmp = gated(at.s, at.s.o_cmp, 0), slc = gated(at.s, at.s.o_slc, 1), win = gated(at.s, at.s.o_win, 2);
  INFO("gated outputs: cmp " << cmp << ", slc " << slc << ", win " << win);
  CHECK(within(3, cmp, slc));
  CHECK(within(3, cmp, win));
  CHECK(within(3, slc, win));
}

TEST_CASE("by fan-in the compression attention is not uniform at the start", "[model]") {
  const Compressor compressor = GENERATE(Compressor::mlp, Compressor::linear, Compressor::mean);
  const Sizes z = GENERATE(from_range(std::begin(kSizes), std::end(kSizes)));
  const LayerAtStart at(config_of(z, compressor, true), tokens_of(z));
  INFO(kCompressors[static_cast<std::size_t>(compressor)] << ", width " << z.C << ", heads of " << z.D << ", l "
                                                          << z.l);
  const double share = entropy_share(at);
  CHECK(share < 0.99);
  CHECK(share > 0.5);  // and not a choice of one block either
}

TEST_CASE("a given init_std is the standard deviation of every matrix", "[model]") {
  ModelConfig config = config_of({64, 32, 16}, Compressor::mlp, false);
  config.init_std = 0.05;
  const LayerAtStart at(config, 512);
  for (const Param& p : at.params.list()) {
    INFO(p.name);
    if (p.init == Init::normal || p.init == Init::centred) CHECK(rms(p.master) == Approx(0.05).epsilon(0.1));
    if (p.init == Init::residual) CHECK(rms(p.master) == Approx(0.05 / std::sqrt(8.0)).epsilon(0.1));
  }
}
