// The model as a whole: learns, plans its bytes, recomputes to the bit, does not depend on threads; NSA equals full
// attention where it must.
#include "small_model.h"
#include "train/optimizer.h"

using namespace nsa;
using namespace nsa::test;

namespace {

AttentionType kBoth[] = {AttentionType::full, AttentionType::nsa};

}  // namespace

TEST_CASE("a two-layer model overfits a batch", "[model]") {
  for (AttentionType type : kBoth) {
    SmallModel m(small_config(type), 2, 48);
    OptimizerConfig adam;
    adam.weight_decay = 0;
    const double first = m.train();
    CHECK(first == Approx(std::log(37.0)).margin(1.0));
    double loss = first;
    for (int step = 1; step <= 150; ++step) {
      loss = m.train();
      double norm = 0;
      for (float g : gradients(*m.gpt)) norm += static_cast<double>(g) * static_cast<double>(g);
      adamw_step(m.dev, m.gpt->params(), adam, 1e-2, step, clip_factor(std::sqrt(norm), 1));
    }
    INFO(kAttentionTypes[static_cast<std::size_t>(type)] << ": first " << first << ", last " << loss);
    CHECK(loss < 0.05);
  }
}

TEST_CASE("AdamW: 1 - beta is taken in double", "[model]") {
  SmallModel m(small_config(AttentionType::full), 1, 20);
  m.train();
  OptimizerConfig adam;
  adam.beta1 = 0.9, adam.beta2 = 0.999;
  const Param& p = m.gpt->params().list().front();
  std::vector<double> want = values(p.grad);
  for (double& g : want) g *= g * (1 - 0.999);
  adamw_step(m.dev, m.gpt->params(), adam, 1e-3, 1, 1);
  CHECK(difference(p.v, want).error < 1e-6);  // 1 - 0.999f is off by 5e-5
}

TEST_CASE("the planned bytes are the bytes a step takes", "[model]") {
  for (AttentionType type : kBoth)
    for (Recompute recompute : {Recompute::none, Recompute::block}) {
      SmallModel m(small_config(type), 3, 50, recompute);  // an arena that is too small throws
      m.train(recompute);
      CHECK(m.dev.params.used() == m.planned_params);
      CHECK(m.dev.work.peak() == m.planned_work);
    }
}

TEST_CASE("recomputing blocks gives the same bits with less memory", "[model]") {
  for (AttentionType type : kBoth) {
    SmallModel none(small_config(type), 2, 70), block(small_config(type), 2, 70, Recompute::block);
    none.train();
    block.train(Recompute::block);
    CHECK(gradients(*none.gpt) == gradients(*block.gpt));
    CHECK(same_bits(none.losses, block.losses));
    CHECK(block.planned_work < none.planned_work);
  }
}

TEST_CASE("one thread and two give the same bits, and so do two runs", "[model]") {
  for (AttentionType type : kBoth) {
    SmallModel one(small_config(type), 2, 90, Recompute::none, 1), two(small_config(type), 2, 90, Recompute::none, 2);
    one.train();
    two.train();
    CHECK(gradients(*one.gpt) == gradients(*two.gpt));
    const std::vector<float> before = gradients(*two.gpt);
    two.train();
    CHECK(gradients(*two.gpt) == before);
  }
}

TEST_CASE("evaluate gives the training losses, next_logits the last row of logits", "[model]") {
  for (AttentionType type : kBoth) {
    SmallModel m(small_config(type), 1, 40);
    m.train();
    TestDevice dev(2);
    const Tensor losses = make(dev, {40}), hits = make(dev, {40}), all = make(dev, {40, 37}),
                 next = make(dev, {1, 37});
    m.gpt->evaluate(dev, losses, hits, m.tokens, m.targets);
    CHECK(same_bits(losses, m.losses));
    m.gpt->logits(dev, all, m.tokens);
    const Tensor likeliest = make(dev, {40});
    op::argmax_hits(dev, likeliest, all, m.targets.view({40}));
    CHECK(same_bits(hits, likeliest));
    m.gpt->next_logits(dev, next, m.tokens, 39);
    CHECK(difference(next, values(all.rows(39, 40))).error < 1e-6);
    m.gpt->next_logits(dev, next, m.tokens, 12);  // what stands after position 12 does not matter
    CHECK(difference(next, values(all.rows(12, 13))).error < 1e-6);
  }
}

TEST_CASE("tied embeddings: the head's and the embedding's gradients meet in one tensor", "[model]") {
  ModelConfig config = small_config(AttentionType::full);
  SmallModel untied(config, 1, 20);
  config.tie_embeddings = true;
  SmallModel tied(config, 1, 20);
  Param& embed = untied.gpt->params().list().front();
  Param& head = untied.gpt->params().list().back();
  upload(head.w, bytes_of(embed.w).data());
  untied.train();
  tied.train();
  std::vector<double> sum = values(embed.grad);
  const std::vector<double> of_head = values(head.grad);
  for (std::size_t i = 0; i < sum.size(); ++i) sum[i] += of_head[i];
  CHECK(difference(tied.gpt->params().list().front().grad, sum).error < 1e-6);
}

TEST_CASE("NSA's window branch with w >= T and selected branch with n >= T/l' are full attention", "[model]") {
  ModelConfig config = small_config(AttentionType::nsa);
  config.attention.select_count = 6;
  config.attention.window = 80;
  const std::int64_t T = 75;  // 5 select blocks
  SmallModel m(config, 2, T);
  TestDevice dev(2);
  const Tensor logits = make(dev, {2 * T, 37});
  int layers = 0;
  m.gpt->logits(dev, logits, m.tokens, [&](std::int64_t, const Block::Saved& saved) {
    const NsaAttention::Saved& s = *saved.nsa();
    const Tensor o = make(dev, s.o_slc.shape), lse = make(dev, s.lse_slc.shape);
    op::attention_forward(dev, o, lse, s.q, s.k_slc, s.v_slc, 0);
    CHECK(difference(s.o_slc, values(o)).error < 1e-6);
    op::attention_forward(dev, o, lse, s.q, s.k_win, s.v_win, 0);
    CHECK(same_bits(s.o_win, o));
    ++layers;
  });
  CHECK(layers == 2);
}

TEST_CASE("tensors two models share start with the same values", "[model]") {
  SmallModel full(small_config(AttentionType::full), 1, 8), sparse(small_config(AttentionType::nsa), 1, 8);
  int shared = 0;
  for (const Param& a : full.gpt->params().list())
    for (const Param& b : sparse.gpt->params().list()) {
      if (a.name != b.name || !(a.shape == b.shape)) continue;
      CHECK(same_bits(a.w, b.w));
      ++shared;
    }
  CHECK(shared >= 2 * 7 + 3);  // norms, feed-forward, q and o of two layers; embedding, final norm, head
}

TEST_CASE("all options of the NSA layer train: gradient of the loss along a direction", "[model]") {
  struct Options {
    Compressor compressor;
    bool shared, qk_norm, rope_before;
  };
  for (Options o : {Options{Compressor::mlp, false, true, false}, Options{Compressor::linear, true, true, true},
                    Options{Compressor::mean, true, false, false}, Options{Compressor::mlp, true, true, false},
                    Options{Compressor::linear, false, false, true}}) {
    ModelConfig config = small_config(AttentionType::nsa);
    config.attention.compressor = o.compressor, config.attention.shared_kv = o.shared;
    config.attention.qk_norm = o.qk_norm, config.attention.rope_before_compress = o.rope_before;
    config.attention.select_count = 8;  // everything selected at this length: the loss is then smooth in the weights
    SmallModel m(config, 1, 61);
    m.train();
    const std::vector<float> g = gradients(*m.gpt);
    double norm = 0;
    for (float v : g) norm += static_cast<double>(v) * static_cast<double>(v);
    const auto loss_at = [&](double h) {  // weights moved by h along the gradient
      std::size_t i = 0;
      for (Param& p : m.gpt->params().list()) {
        std::vector<float> w = downloaded<float>(p.w);
        for (float& x : w) x += static_cast<float>(h * static_cast<double>(g[i++]) / std::sqrt(norm));
        upload(p.w, w.data());
      }
      return m.train();
    };
    const double h = 2e-2, up = loss_at(h), down = loss_at(-2 * h);
    INFO("compressor " << static_cast<int>(o.compressor) << " shared " << o.shared << " qk_norm " << o.qk_norm
                       << " rope_before " << o.rope_before);
    CHECK((up - down) / (2 * h) == Approx(std::sqrt(norm)).epsilon(0.01));
  }
}
