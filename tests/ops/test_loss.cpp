#include "ops/ops.h"
#include "ref/ops.h"

using namespace nsa;
using namespace nsa::test;

namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
std::size_t u(std::int64_t n) { return static_cast<std::size_t>(n); }

}  // namespace

TEST_CASE("cross-entropy: loss and gradient, ignored targets, vocabularies of any width") {
  struct Case {
    std::int64_t N, V;
    double scale;
  };
  const Kind kind = any_kind();
  const auto [N, V, spread] = GENERATE(Case{1, 3, 1}, Case{7, 1, 1}, Case{9, 33, 3}, Case{40, 65, 10}, Case{3, 1024, 3},
                                       Case{3, 1025, 3}, Case{2, 50304, 4}, Case{2, 70001, 30});
  INFO(describe(kind));
  TestDevice dev(kind);
  const Tensor x = random(dev, {N, V}, "logits", spread, 0, kind.type),
               targets = random_ints(dev, {N}, "targets", 0, static_cast<std::int32_t>(V));
  if (N > 1) set_at(targets, N / 2, -1);
  const Tensor losses = make(dev, {N}), losses2 = make(dev, {N});
  const auto want = ref::cross_entropy_forward(values(x), ints(targets), u(V));
  const auto d_want = ref::cross_entropy_backward(values(x), ints(targets), u(V), 0.125);
  const Tensor before = clone(dev, x);
  op::cross_entropy_forward(dev, losses, x, targets);
  CHECK(same_bits(x, before));
  check_close("losses", losses, want);
  op::cross_entropy_forward_backward(dev, losses2, x, targets, 0.125f);
  CHECK(same_bits(losses, losses2));
  check_rounded("d_logits", x, d_want);
  if (N > 1) CHECK(values(losses)[u(N / 2)] == 0);
}

TEST_CASE("cross-entropy: extreme logits") {
  const Kind kind = any_kind();
  INFO(describe(kind));
  TestDevice dev(kind);
  const std::size_t V = 3000;
  const Tensor x = make(dev, {3, 3000}, kind.type), targets = make(dev, {3}, DType::i32), losses = make(dev, {3});
  std::vector<float> logits(3 * V, -80);
  logits[5] = 80;                                                     // row 0: all the mass on one token
  for (std::size_t v = 0; v < 2048; ++v) logits[V + v] = -kInfinity;  // row 1: whole blocks masked
  for (std::size_t v = 0; v < V; ++v) logits[2 * V + v] = 1e6f;       // row 2: equal and huge
  set(x, logits);
  set(targets, std::vector<int>{5, 2500, 0});
  op::cross_entropy_forward_backward(dev, losses, x, targets, 1);
  const auto loss = values(losses), d = values(x);
  CHECK(loss[0] == Approx(0).margin(1e-6));
  CHECK(loss[1] == Approx(std::log(952.0)));
  CHECK(loss[2] == Approx(std::log(3000.0)).epsilon(1e-6));
  const double epsilon = kind.type == DType::bf16 ? 1.0 / 256 : 1e-5;
  CHECK(d[V] == 0);
  CHECK(d[V + 2049] == Approx(1 / 952.0).epsilon(epsilon));
  CHECK(d[V + 2500] == Approx(1 / 952.0 - 1).epsilon(epsilon));
}

TEST_CASE("cross-entropy: what is left of a probability near 1 is not lost in rounding") {
  const Kind kind = any_kind();
  INFO(describe(kind));
  TestDevice dev(kind);
  const Tensor x = make(dev, {1, 2}, kind.type), targets = make(dev, {1}, DType::i32), losses = make(dev, {1});
  set(x, std::vector<double>{0, 8});  // p = 1 / (1 + e^-8) = 1 - 3.4e-4: 1 in bf16
  set(targets, std::vector<int>{1});
  op::cross_entropy_forward_backward(dev, losses, x, targets, 1);
  CHECK(values(x)[1] == Approx(-1 / (1 + std::exp(8.0))).epsilon(1.0 / 256));
  CHECK(values(x)[0] == Approx(1 / (1 + std::exp(8.0))).epsilon(1.0 / 256));
}

TEST_CASE("cross-entropy: a non-finite logit makes the loss non-finite") {
  const Kind kind = any_kind();
  const float bad = GENERATE(std::numeric_limits<float>::quiet_NaN(), kInfinity);
  const std::int64_t place = GENERATE(0, 7, 1500, 2999);
  INFO(describe(kind));
  TestDevice dev(kind);
  const Tensor x = random(dev, {2, 3000}, "x", kind.type), targets = random_ints(dev, {2}, "t", 0, 3000),
               losses = make(dev, {2});
  set_at(x, place, bad);
  op::cross_entropy_forward(dev, losses, x, targets);
  CHECK(!std::isfinite(values(losses)[0]));
  CHECK(std::isfinite(values(losses)[1]));
  op::cross_entropy_forward_backward(dev, losses, x, targets, 1);
  CHECK(!std::isfinite(values(losses)[0]));
  CHECK(std::isfinite(values(losses)[1]));
}

TEST_CASE("cross-entropy: the bits do not depend on the number of threads") {
  const Kind kind = any_kind();
  INFO(describe(kind));
  TestDevice one(kind, 1), two(kind, 2);
  const Tensor x1 = random(one, {50, 2500}, "x", kind.type), x2 = random(two, {50, 2500}, "x", kind.type),
               targets = random_ints(one, {50}, "t", -1, 2500);
  const Tensor l1 = make(one, {50}), l2 = make(one, {50});
  op::cross_entropy_forward_backward(one, l1, x1, targets, 0.1f);
  op::cross_entropy_forward_backward(two, l2, x2, targets, 0.1f);
  CHECK(same_bits(l1, l2));
  CHECK(same_bits(x1, x2));
}

TEST_CASE("hits: the target is the row's largest logit, of equals the first; none for an ignored target or a NaN") {
  struct Case {
    std::int64_t N, V;
  };
  const Kind kind = any_kind();
  const auto [N, V] = GENERATE(Case{7, 1}, Case{50, 2}, Case{60, 3}, Case{200, 17}, Case{40, 65}, Case{9, 1025});
  INFO(describe(kind) << ", V " << V);
  TestDevice dev(kind);
  const Tensor x = random(dev, {N, V}, "logits", kind.type), targets = make(dev, {N}, DType::i32);
  std::vector<double> logits = values(x);
  std::vector<int> wanted;
  for (std::int64_t n = 0; n < N; ++n) {
    const auto row = logits.begin() + n * V;
    const auto top = std::max_element(row, row + V);
    wanted.push_back(static_cast<int>(top - row));
    if (n % 5 == 1) *(row + (n * 7) % V) = *top;                                       // a second one as large
    if (n % 5 == 2) wanted.back() = static_cast<int>((n * 11) % V);                    // any token
    if (n % 5 == 3) wanted.back() = -1;                                                // ignored
    if (n % 10 == 4) *(row + (n * 3) % V) = std::numeric_limits<double>::quiet_NaN();  // maybe the target itself
  }
  set(x, logits);
  set(targets, wanted);
  const Tensor hits = make(dev, {N}), before = clone(dev, x);
  op::argmax_hits(dev, hits, x, targets);
  CHECK(same_bits(x, before));
  std::vector<double> want = ref::argmax_hits(values(x), ints(targets), u(V));
  for (std::int64_t n = 4; n < N; n += 10) want[u(n)] = 0;
  CHECK(values(hits) == want);
  CHECK(values(hits)[0] == 1);
}
