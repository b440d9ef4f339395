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
  const auto [N, V, spread] = GENERATE(Case{1, 3, 1}, Case{7, 1, 1}, Case{9, 33, 3}, Case{40, 65, 10}, Case{3, 1024, 3},
                                       Case{3, 1025, 3}, Case{2, 50304, 4}, Case{2, 70001, 30});
  TestDevice dev;
  const Tensor x = random(dev, {N, V}, "logits", spread),
               targets = random_ints(dev, {N}, "targets", 0, static_cast<std::int32_t>(V));
  if (N > 1) targets.i32()[N / 2] = -1;
  const Tensor losses = make(dev, {N}), losses2 = make(dev, {N});
  const auto want = ref::cross_entropy_forward(values(x), ints(targets), u(V));
  const auto d_want = ref::cross_entropy_backward(values(x), ints(targets), u(V), 0.125);
  const Tensor before = clone(dev, x);
  op::cross_entropy_forward(dev, losses, x, targets);
  CHECK(same_bits(x, before));
  check_close("losses", losses, want);
  op::cross_entropy_forward_backward(dev, losses2, x, targets, 0.125f);
  CHECK(same_bits(losses, losses2));
  check_close("d_logits", x, d_want);
  if (N > 1) CHECK(losses.f32()[N / 2] == 0);
}

TEST_CASE("cross-entropy: extreme logits") {
  TestDevice dev;
  const std::int64_t V = 3000;
  const Tensor x = make(dev, {3, V}), targets = make(dev, {3}, DType::i32), losses = make(dev, {3});
  op::fill(dev, x, -80);
  x.f32()[5] = 80;                                                      // row 0: all the mass on one token
  for (std::int64_t v = 0; v < 2048; ++v) x.f32()[V + v] = -kInfinity;  // row 1: whole blocks masked
  for (std::int64_t v = 0; v < V; ++v) x.f32()[2 * V + v] = 1e6f;       // row 2: equal and huge
  targets.i32()[0] = 5, targets.i32()[1] = 2500, targets.i32()[2] = 0;
  op::cross_entropy_forward_backward(dev, losses, x, targets, 1);
  CHECK(losses.f32()[0] == Approx(0).margin(1e-6));
  CHECK(losses.f32()[1] == Approx(std::log(952.0)));
  CHECK(losses.f32()[2] == Approx(std::log(3000.0)).epsilon(1e-6));
  CHECK(x.f32()[V] == 0);
  CHECK(x.f32()[V + 2049] == Approx(1 / 952.0));
  CHECK(x.f32()[V + 2500] == Approx(1 / 952.0 - 1));
}

TEST_CASE("cross-entropy: a non-finite logit makes the loss non-finite") {
  const float bad = GENERATE(std::numeric_limits<float>::quiet_NaN(), kInfinity);
  const std::int64_t place = GENERATE(0, 7, 1500, 2999);
  TestDevice dev;
  const Tensor x = random(dev, {2, 3000}, "x"), targets = random_ints(dev, {2}, "t", 0, 3000), losses = make(dev, {2});
  x.f32()[place] = bad;
  op::cross_entropy_forward(dev, losses, x, targets);
  CHECK(!std::isfinite(losses.f32()[0]));
  CHECK(std::isfinite(losses.f32()[1]));
  op::cross_entropy_forward_backward(dev, losses, x, targets, 1);
  CHECK(!std::isfinite(losses.f32()[0]));
  CHECK(std::isfinite(losses.f32()[1]));
}

TEST_CASE("cross-entropy: the bits do not depend on the number of threads") {
  TestDevice one(1), two(2);
  const Tensor x1 = random(one, {50, 2500}, "x"), x2 = random(two, {50, 2500}, "x"),
               targets = random_ints(one, {50}, "t", -1, 2500);
  const Tensor l1 = make(one, {50}), l2 = make(one, {50});
  op::cross_entropy_forward_backward(one, l1, x1, targets, 0.1f);
  op::cross_entropy_forward_backward(two, l2, x2, targets, 0.1f);
  CHECK(same_bits(l1, l2));
  CHECK(same_bits(x1, x2));
}
