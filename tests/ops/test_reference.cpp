// The references' backwards are the derivatives of their forwards, and the references agree with themselves in float
// and double.
#include "ref/ops.h"

using namespace nsa;
using namespace nsa::test;

namespace {

std::vector<double> numbers(std::size_t n, const std::string& name, double scale = 1) {
  std::vector<double> v(n);
  const Rng rng(2, name);
  for (std::size_t i = 0; i < n; ++i) v[i] = scale * rng.normal(i);
  return v;
}
std::vector<float> in_float(const std::vector<double>& v) { return {v.begin(), v.end()}; }

}  // namespace

TEST_CASE("reference: matmul gradients") {
  const std::size_t N = 3, I = 4, O = 5;
  const auto x = numbers(N * I, "x"), w = numbers(O * I, "w"), dy = numbers(N * O, "dy");
  check_gradient("dx", ref::matmul_backward_input(dy, w, N, I, O), x, [&](const std::vector<Complex>& z) {
    return weighted_sum(ref::matmul_forward(z, lift(w), N, I, O), dy);
  });
  check_gradient("dw", ref::matmul_backward_weight(dy, x, N, I, O), w, [&](const std::vector<Complex>& z) {
    return weighted_sum(ref::matmul_forward(lift(x), z, N, I, O), dy);
  });
  check_close("y", ref::matmul_forward(in_float(x), in_float(w), N, I, O), ref::matmul_forward(x, w, N, I, O), 1e-6);
}

TEST_CASE("reference: embedding gradient") {
  const std::size_t V = 5, C = 3;
  const ref::Ids tokens{1, 4, 1, 0, 1};
  const auto w = numbers(V * C, "w"), dy = numbers(tokens.size() * C, "dy");
  check_gradient("dw", ref::embedding_backward(dy, tokens, V, C), w,
                 [&](const std::vector<Complex>& z) { return weighted_sum(ref::embedding_forward(z, tokens, C), dy); });
}

TEST_CASE("reference: rmsnorm gradients") {
  const std::size_t N = 4, C = 7;
  const auto x = numbers(N * C, "x"), w = numbers(C, "w"), dy = numbers(N * C, "dy");
  const auto g = ref::rmsnorm_backward(dy, x, w, 1e-3);
  check_gradient("dx", g.dx, x, [&](const std::vector<Complex>& z) {
    return weighted_sum(ref::rmsnorm_forward(z, lift(w), 1e-3), dy);
  });
  check_gradient("dw", g.dw, w, [&](const std::vector<Complex>& z) {
    return weighted_sum(ref::rmsnorm_forward(lift(x), z, 1e-3), dy);
  });
  check_close("y", ref::rmsnorm_forward(in_float(x), in_float(w), 1e-3), ref::rmsnorm_forward(x, w, 1e-3), 1e-6);
}

TEST_CASE("reference: rope gradient is the inverse rotation") {
  const std::size_t B = 2, T = 3, H = 2, D = 6;
  const auto x = numbers(B * T * H * D, "x"), dy = numbers(B * T * H * D, "dy");
  check_gradient("dx", ref::rope(dy, T, H, D, 2, 100.0, -1), x,
                 [&](const std::vector<Complex>& z) { return weighted_sum(ref::rope(z, T, H, D, 2, 100.0), dy); });
  check_close("there and back", ref::rope(ref::rope(x, T, H, D, 2, 100.0), T, H, D, 2, 100.0, -1), x, 1e-14);
}

TEST_CASE("reference: swiglu gradients") {
  const auto gate = numbers(9, "gate", 2), up = numbers(9, "up"), dy = numbers(9, "dy");
  const auto g = ref::swiglu_backward(dy, gate, up);
  check_gradient("d_gate", g.d_gate, gate,
                 [&](const std::vector<Complex>& z) { return weighted_sum(ref::swiglu_forward(z, lift(up)), dy); });
  check_gradient("d_up", g.d_up, up,
                 [&](const std::vector<Complex>& z) { return weighted_sum(ref::swiglu_forward(lift(gate), z), dy); });
}

TEST_CASE("reference: cross-entropy gradient, an ignored target included") {
  const std::size_t V = 6;
  const ref::Ids targets{2, -1, 5, 0};
  const auto x = numbers(targets.size() * V, "logits", 3);
  const std::vector<double> ones(targets.size(), 0.5);
  check_gradient("d_logits", ref::cross_entropy_backward(x, targets, V, 0.5), x, [&](const std::vector<Complex>& z) {
    return weighted_sum(ref::cross_entropy_forward(z, targets, V), ones);
  });
  CHECK(ref::cross_entropy_forward(x, targets, V)[1] == 0);
}

TEST_CASE("complex step sees a wrong gradient") {
  const auto x = numbers(5, "x");
  auto wrong = complex_step_gradient(x, [](const std::vector<Complex>& z) { return z[0] * z[1] * z[4]; });
  wrong[1] *= 1.0 + 1e-9;
  const auto right = complex_step_gradient(x, [](const std::vector<Complex>& z) { return z[0] * z[1] * z[4]; });
  CHECK(difference(wrong, right).error > 1e-12);
  CHECK(difference(wrong, right).worst == 1);
}

TEST_CASE("a difference names the coordinate, and NaN is never close") {
  TestDevice dev;
  const Tensor a = random(dev, {2, 3, 4}, "a"), b = clone(dev, a);
  CHECK(difference(a, values(b)).error == 0);
  b.f32()[1 * 12 + 2 * 4 + 3] += 1;
  CHECK(multi_index(a.shape, difference(a, values(b)).worst) == "[1, 2, 3]");
  b.f32()[5] = std::numeric_limits<float>::quiet_NaN();
  CHECK(std::isinf(difference(a, values(b)).error));
  CHECK(std::isinf(difference(b, values(a)).error));
}
