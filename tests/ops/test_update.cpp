// AdamW, fill, copy, add and the sums.
#include <cfloat>

#include "ops/ops.h"
#include "ref/ops.h"

using namespace nsa;
using namespace nsa::test;

namespace {

/// All n elements decay.
Tensor one_range(Device& dev, std::int64_t n) {
  const Tensor t = make(dev, {1, 2}, DType::i32);
  set(t, std::vector<std::int64_t>{(n + kAdamWRange - 1) / kAdamWRange, 1});
  return t;
}

}  // namespace

TEST_CASE("adamw: several steps against the reference") {
  const std::int64_t n = GENERATE(1, 7, 33, 40000);
  TestDevice dev;
  const Tensor w = random(dev, {n}, "w"), m = make(dev, {n}), v = make(dev, {n});
  op::fill(dev, m, 0);
  op::fill(dev, v, 0);
  auto w_ref = values(w), m_ref = values(m), v_ref = values(v);
  double beta1_t = 1, beta2_t = 1;
  for (int t = 1; t <= 3; ++t) {
    AdamWStep step{0.01f, 0.9f, 0.95f, 1e-8f, 0.1f};
    beta1_t *= step.beta1, beta2_t *= step.beta2;
    step.grad_scale = 0.5f;
    step.m_scale = static_cast<float>(1 / (1 - beta1_t)), step.v_scale = static_cast<float>(1 / (1 - beta2_t));
    const Tensor grad = random(dev, {n}, "grad" + std::to_string(t));
    op::adamw(dev, w, m, v, Tensor(), grad, one_range(dev, n), step);
    ref::adamw(w_ref, m_ref, v_ref, values(grad), step);
  }
  check_close("w", w, w_ref);
  check_close("m", m, m_ref);
  check_close("v", v, v_ref);
}

TEST_CASE("adamw: no gradient means no step but the decay; a zero element never divides by zero") {
  TestDevice dev;
  const Tensor w = random(dev, {10}, "w"), m = make(dev, {10}), v = make(dev, {10}), g = make(dev, {10});
  for (const Tensor& t : {m, v, g}) op::fill(dev, t, 0);
  auto want = values(w);
  for (double& x : want) x *= 1 - 0.1 * 0.5;
  AdamWStep step;
  step.lr = 0.1f, step.weight_decay = 0.5f;
  op::adamw(dev, w, m, v, Tensor(), g, one_range(dev, w.numel()), step);
  check_close("w", w, want, 1e-6);
}

TEST_CASE("fill, copy, add") {
  const std::int64_t n = GENERATE(0, 1, 33, 70000);
  TestDevice dev(2);
  const Tensor x = random(dev, {n}, "x"), y = make(dev, {n});
  op::copy(dev, y, x);
  CHECK(same_bits(x, y));
  op::add(dev, y, x);
  auto want = values(x);
  for (double& e : want) e *= 2;
  check_close("y", y, want, 0);
  op::fill(dev, y, 2.5f);
  check_close("fill", y, std::vector<double>(static_cast<std::size_t>(n), 2.5), 0);
  const Tensor a = random_ints(dev, {n}, "ids", 0, 100), b = make(dev, {n}, DType::i32);
  upload(b, ints(a).data());
  CHECK(same_bits(a, b));
}

TEST_CASE("sums: in double, over any number of chunks") {
  const std::int64_t n = GENERATE(0, 1, 5, 16383, 16384, 16385, 200001);
  TestDevice dev;
  const Tensor x = random(dev, {n}, "x", 1, 0.1), total = make(dev, {1}), squares = make(dev, {1});
  double sum = 0, sum_of_squares = 0;
  for (double e : values(x)) sum += e, sum_of_squares += e * e;
  op::sum(dev, total, x, Write::overwrite);
  op::sum_squares(dev, squares, x, Write::overwrite);
  CHECK(total.f32()[0] == Approx(sum).epsilon(1e-6));
  CHECK(squares.f32()[0] == Approx(sum_of_squares).epsilon(1e-6));
}

TEST_CASE("sums: squares that overflow float, cancellation, NaN") {
  TestDevice dev;
  const Tensor x = make(dev, {100003}), result = make(dev, {1});
  op::fill(dev, x, 0);
  x.f32()[1] = 1e8f, x.f32()[2] = 1, x.f32()[100002] = -1e8f;
  op::sum(dev, result, x, Write::overwrite);
  CHECK(result.f32()[0] == 1);
  op::fill(dev, x, 1e19f);  // the square alone, 1e38, is near the end of float; the sum is beyond it
  op::sum_squares(dev, result, x, Write::overwrite);
  CHECK(std::isinf(result.f32()[0]));
  op::fill(dev, x, 0);
  x.f32()[70000] = std::numeric_limits<float>::quiet_NaN();
  op::sum_squares(dev, result, x, Write::overwrite);
  CHECK(std::isnan(result.f32()[0]));
  op::sum(dev, result, x, Write::overwrite);
  CHECK(std::isnan(result.f32()[0]));
}

TEST_CASE("updates and sums: the bits do not depend on the number of threads") {
  const std::int64_t n = 300007;
  TestDevice one(1), two(2), five(5);
  std::vector<Tensor> results[3];
  TestDevice* devices[] = {&one, &two, &five};
  for (int i = 0; i < 3; ++i) {
    Device& dev = *devices[i];
    const Tensor w = random(dev, {n}, "w"), m = random(dev, {n}, "m"), v = make(dev, {n}), g = random(dev, {n}, "g");
    const Tensor total = make(dev, {1}), squares = make(dev, {1});
    op::fill(dev, v, 0.5f);
    AdamWStep step;
    step.lr = 0.1f, step.weight_decay = 0.5f;
    op::adamw(dev, w, m, v, Tensor(), g, one_range(dev, w.numel()), step);
    op::sum(dev, total, w, Write::overwrite);
    op::sum_squares(dev, squares, w, Write::overwrite);
    op::add(dev, g, w);
    results[i] = {w, m, v, g, total, squares};
  }
  for (std::size_t i = 0; i < results[0].size(); ++i) {
    INFO("result " << i);
    CHECK(same_bits(results[0][i], results[1][i]));
    CHECK(same_bits(results[0][i], results[2][i]));
  }
}
