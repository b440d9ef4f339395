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
  const Kind kind = any_f32_kind();
  const std::int64_t n = GENERATE(1, 7, 33, 40000);
  TestDevice dev(kind);
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
  TestDevice dev(any_f32_kind());
  const Tensor w = random(dev, {10}, "w"), m = make(dev, {10}), v = make(dev, {10}), g = make(dev, {10});
  for (const Tensor& t : {m, v, g}) op::fill(dev, t, 0);
  auto want = values(w);
  for (double& x : want) x *= 1 - 0.1 * 0.5;
  AdamWStep step;
  step.lr = 0.1f, step.weight_decay = 0.5f;
  op::adamw(dev, w, m, v, Tensor(), g, one_range(dev, w.numel()), step);
  check_close("w", w, want, 1e-6);
}

TEST_CASE("adamw: ranges that decay and ranges that do not, with a bf16 copy") {
  const Kind kind = any_f32_kind();
  const std::int64_t n = 40000;  // 625 units of kAdamWRange, several pieces of work
  INFO(describe(kind));
  TestDevice dev(kind, 2);
  const Tensor w = random(dev, {n}, "w"), m = random(dev, {n}, "m"), v = make(dev, {n}), g = random(dev, {n}, "g"),
               copy = make(dev, {n}, DType::bf16), ranges = make(dev, {4, 2}, DType::i32);
  op::fill(dev, v, 0.5f);
  set(ranges, std::vector<int>{1, 1, 3, 0, 300, 1, 625, 0});
  AdamWStep step, without;
  step.lr = without.lr = 0.1f, step.weight_decay = 0.5f;
  auto w_decayed = values(w), w_plain = w_decayed, m_decayed = values(m), m_plain = m_decayed, v_decayed = values(v),
       v_plain = v_decayed;
  ref::adamw(w_decayed, m_decayed, v_decayed, values(g), step);
  ref::adamw(w_plain, m_plain, v_plain, values(g), without);
  op::adamw(dev, w, m, v, copy, g, ranges, step);
  for (std::size_t i = 0; i < w_plain.size(); ++i)
    if (i < 64 || (i >= 192 && i < 19200)) w_plain[i] = w_decayed[i];
  check_close("w", w, w_plain);
  check_close("m", m, m_plain);
  check_close("v", v, v_plain);
  check_close("copy", copy, rounded_to_bf16(values(w)), 0);
}

TEST_CASE("fill, copy, add") {
  const Kind kind = any_kind();
  const std::int64_t n = GENERATE(0, 1, 33, 70000);
  INFO(describe(kind));
  TestDevice dev(kind, 2);
  const Tensor x = random(dev, {n}, "x", kind.type), y = make(dev, {n}, kind.type);
  op::copy(dev, y, x);
  CHECK(same_bits(x, y));
  const Tensor other = random(dev, {n}, "other", kind.type);
  auto want = values(x);
  const auto more = values(other);
  for (std::size_t i = 0; i < want.size(); ++i) want[i] += more[i];
  op::add(dev, y, other);
  check_rounded("y", y, want);
  op::fill(dev, y, 2.5f);
  check_close("fill", y, std::vector<double>(static_cast<std::size_t>(n), 2.5), 0);
}

TEST_CASE("copy converts: to nearest, ties to even, what is not finite stays so") {
  TestDevice dev(any_f32_kind(), 2);
  std::vector<float> v{0.0f,    -0.0f,    1.0f + 1 / 256.0f, 1.0f + 3 / 256.0f, 1e-40f,
                       FLT_MAX, -FLT_MAX, INFINITY,          -INFINITY};
  const Rng rng(1, "copy");
  while (v.size() < 70001) v.push_back(static_cast<float>(rng.normal(v.size())));
  std::vector<double> rounded;
  for (float e : v) rounded.push_back(rounded_to_bf16(e));
  CHECK(rounded[2] == 1.0);
  CHECK(rounded[3] == 1.0 + 4 / 256.0);
  const Tensor x = make(dev, {70001}), half = make(dev, {70001}, DType::bf16), back = make(dev, {70001});
  set(x, v);
  op::copy(dev, half, x);
  op::copy(dev, back, half);
  CHECK(values(half) == rounded);
  CHECK(values(back) == rounded);
  for (std::int64_t i : {0, 16, 70000}) set_at(x, i, std::numeric_limits<double>::quiet_NaN());
  op::copy(dev, half, x);
  for (std::size_t i : {0u, 16u, 70000u}) CHECK(std::isnan(values(half)[i]));
  CHECK(values(half)[1] == 0);
}

TEST_CASE("sums: in double, over any number of chunks") {
  const Kind kind = any_f32_kind();
  const std::int64_t n = GENERATE(0, 1, 5, 16383, 16384, 16385, 200001);
  TestDevice dev(kind);
  const Tensor x = random(dev, {n}, "x", 1, 0.1), total = make(dev, {1}), squares = make(dev, {1});
  double sum = 0, sum_of_squares = 0;
  for (double e : values(x)) sum += e, sum_of_squares += e * e;
  op::sum(dev, total, x, Write::overwrite);
  op::sum_squares(dev, squares, x, Write::overwrite);
  CHECK(values(total)[0] == Approx(sum).epsilon(1e-6));
  CHECK(values(squares)[0] == Approx(sum_of_squares).epsilon(1e-6));
  op::sum(dev, total, x, Write::add);
  op::sum_squares(dev, squares, x, Write::add);
  CHECK(values(total)[0] == Approx(2 * sum).epsilon(1e-6));
  CHECK(values(squares)[0] == Approx(2 * sum_of_squares).epsilon(1e-6));
}

TEST_CASE("sum_rows: in double, over any number of chunks; sum adds when asked to") {
  const std::int64_t N = GENERATE(0, 1, 5, 6000, 20001), C = GENERATE(1, 3);
  TestDevice dev(2);
  const Tensor x = random(dev, {N, C}, "x", 1, 0.1), sums = make(dev, {C}), total = make(dev, {1});
  std::vector<double> want(static_cast<std::size_t>(C));
  const auto v = values(x);
  double all = 3;
  for (std::size_t i = 0; i < v.size(); ++i) want[i % want.size()] += v[i], all += v[i];
  op::sum_rows(dev, sums, x);
  check_close("sums", sums, want, 1e-6);
  op::fill(dev, total, 3);
  op::sum(dev, total, x, Write::add);
  CHECK(total.f32()[0] == Approx(all).epsilon(1e-6));
}

TEST_CASE("sums: squares that overflow float, cancellation, NaN") {
  TestDevice dev(any_f32_kind());
  const Tensor x = make(dev, {100003}), result = make(dev, {1});
  op::fill(dev, x, 0);
  set_at(x, 1, 1e8), set_at(x, 2, 1), set_at(x, 100002, -1e8);
  op::sum(dev, result, x, Write::overwrite);
  CHECK(values(result)[0] == 1);
  op::fill(dev, x, 1e19f);  // the square alone, 1e38, is near the end of float; the sum is beyond it
  op::sum_squares(dev, result, x, Write::overwrite);
  CHECK(std::isinf(values(result)[0]));
  op::fill(dev, x, 0);
  set_at(x, 70000, std::numeric_limits<float>::quiet_NaN());
  op::sum_squares(dev, result, x, Write::overwrite);
  CHECK(std::isnan(values(result)[0]));
  op::sum(dev, result, x, Write::overwrite);
  CHECK(std::isnan(values(result)[0]));
}

TEST_CASE("updates and sums: the bits do not depend on the number of threads") {
  const Kind kind = any_f32_kind();
  const std::int64_t n = 300007;
  TestDevice one(kind, 1), two(kind, 2), five(kind, 5);
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
