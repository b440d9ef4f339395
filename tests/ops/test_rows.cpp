// Embedding, RMSNorm, RoPE, SwiGLU against their references.
#include "ops/ops.h"
#include "ref/ops.h"

using namespace nsa;
using namespace nsa::test;

namespace {

struct Rows {
  std::int64_t N, C;
};
std::size_t u(std::int64_t n) { return static_cast<std::size_t>(n); }
std::vector<double> plus(std::vector<double> a, const std::vector<double>& b) {
  for (std::size_t i = 0; i < a.size(); ++i) a[i] += b[i];
  return a;
}
Rows any_rows() {
  return GENERATE(Rows{1, 1}, Rows{1, 7}, Rows{3, 33}, Rows{65, 7}, Rows{40, 128}, Rows{5, 769}, Rows{700, 50});
}

}  // namespace

TEST_CASE("embedding: repeated tokens, odd widths") {
  const auto [N, C] = any_rows();
  const std::int64_t V = 5;
  TestDevice dev;
  const Tensor w = random(dev, {V, C}, "w"), tokens = random_ints(dev, {N}, "tokens", 0, V), y = make(dev, {N, C});
  op::embedding_forward(dev, y, tokens, w);
  check_close("y", y, ref::embedding_forward(values(w), ints(tokens), u(C)), 0);
  const Tensor dy = random(dev, {N, C}, "dy"), dw = random(dev, {V, C}, "dw");
  const auto want = plus(ref::embedding_backward(values(dy), ints(tokens), u(V), u(C)), values(dw));
  op::embedding_backward(dev, dw, dy, tokens);
  check_close("dw", dw, want);
}

TEST_CASE("rmsnorm: forward, with and without the residual add") {
  const auto [N, C] = any_rows();
  const float eps = 1e-5f;
  TestDevice dev;
  const Tensor a = random(dev, {N, C}, "a"), b = random(dev, {N, C}, "b"), w = random(dev, {C}, "w", 0.3, 1);
  const Tensor y = make(dev, {N, C}), rstd = make(dev, {N});
  op::rmsnorm_forward(dev, y, rstd, a, w, eps);
  check_close("y", y, ref::rmsnorm_forward(values(a), values(w), eps));
  check_close("rstd", rstd, ref::rmsnorm_rstd(values(a), u(C), eps));

  const Tensor sum = make(dev, {N, C}), y2 = make(dev, {N, C}), y3 = make(dev, {N, C});
  op::add_rmsnorm_forward(dev, sum, y2, rstd, a, b, w, eps);
  const auto want = plus(values(a), values(b));
  check_close("sum", sum, want);
  check_close("y of the sum", y2, ref::rmsnorm_forward(want, values(w), eps));
  op::add_rmsnorm_forward(dev, a, y3, rstd, a, b, w, eps);  // sum in place of a
  CHECK(same_bits(a, sum));
  CHECK(same_bits(y3, y2));
}

TEST_CASE("rmsnorm: backward, both write modes, dx in place of dy") {
  const auto [N, C] = any_rows();
  const float eps = 1e-5f;
  TestDevice dev;
  const Tensor x = random(dev, {N, C}, "x"), w = random(dev, {C}, "w", 0.3, 1), dy = random(dev, {N, C}, "dy");
  const Tensor y = make(dev, {N, C}), rstd = make(dev, {N}), dw0 = random(dev, {C}, "dw");
  op::rmsnorm_forward(dev, y, rstd, x, w, eps);
  const auto want = ref::rmsnorm_backward(values(dy), values(x), values(w), eps);

  const Tensor dx = make(dev, {N, C}), dw = clone(dev, dw0);
  op::rmsnorm_backward(dev, dx, dw, dy, x, w, rstd, Write::overwrite);
  if (C > 1) check_close("dx", dx, want.dx);  // C = 1: dx is eps-small, a difference of equal numbers
  check_close("dw", dw, plus(want.dw, values(dw0)));

  const Tensor dx_add = random(dev, {N, C}, "before"), dw_add = clone(dev, dw0);
  const auto dx_want = plus(want.dx, values(dx_add));
  op::rmsnorm_backward(dev, dx_add, dw_add, dy, x, w, rstd, Write::add);
  check_close("dx +=", dx_add, dx_want);
  CHECK(same_bits(dw_add, dw));

  const Tensor in_place = clone(dev, dy), dw_place = clone(dev, dw0);
  op::rmsnorm_backward(dev, in_place, dw_place, in_place, x, w, rstd, Write::overwrite);
  CHECK(same_bits(in_place, dx));
  CHECK(same_bits(dw_place, dw));
}

TEST_CASE("rope: table, rotation with a stride, and back") {
  struct Case {
    std::int64_t B, T, H, D, stride;
  };
  const auto [B, T, H, D, stride] = GENERATE(Case{1, 1, 1, 2, 1}, Case{2, 5, 3, 6, 1}, Case{1, 9, 2, 64, 16},
                                             Case{2, 3, 1, 34, 4}, Case{1, 200, 4, 128, 1}, Case{1, 0, 2, 8, 1});
  const double theta = 10000;
  TestDevice dev;
  const Tensor table = make(dev, {(T ? T - 1 : 0) * stride + 1, D / 2, 2}), x = random(dev, {B, T, H, D}, "x"),
               y = clone(dev, x);
  op::rope_table(dev, table, theta);
  op::rope_forward(dev, y, table, stride);
  check_close("y", y, ref::rope(values(x), u(T), u(H), u(D), u(stride), theta));
  const Tensor back = clone(dev, x);
  op::rope_backward(dev, back, table, stride);
  check_close("dx", back, ref::rope(values(x), u(T), u(H), u(D), u(stride), theta, -1));
  op::rope_backward(dev, y, table, stride);
  check_close("there and back", y, x, 1e-6);
}

TEST_CASE("rope: angles are exact far out") {
  TestDevice dev;
  const Tensor table = make(dev, {100001, 1, 2});
  op::rope_table(dev, table, 10000);
  CHECK(table.f32()[200000] == static_cast<float>(std::cos(100000.0)));
  CHECK(table.f32()[200001] == static_cast<float>(std::sin(100000.0)));
}

TEST_CASE("swiglu: forward and backward, also in place") {
  const auto [N, F] = any_rows();
  TestDevice dev;
  const Tensor gate = random(dev, {N, F}, "gate", 3), up = random(dev, {N, F}, "up"), dy = random(dev, {N, F}, "dy"),
               y = make(dev, {N, F});
  op::swiglu_forward(dev, y, gate, up);
  check_close("y", y, ref::swiglu_forward(values(gate), values(up)));
  const auto want = ref::swiglu_backward(values(dy), values(gate), values(up));
  const Tensor d_gate = make(dev, {N, F}), d_up = make(dev, {N, F});
  op::swiglu_backward(dev, d_gate, d_up, dy, gate, up);
  check_close("d_gate", d_gate, want.d_gate);
  check_close("d_up", d_up, want.d_up);
  op::swiglu_backward(dev, gate, up, dy, gate, up);
  CHECK(same_bits(gate, d_gate));
  CHECK(same_bits(up, d_up));
}

TEST_CASE("swiglu: large gates saturate") {
  TestDevice dev;
  const Tensor gate = make(dev, {1, 4}), up = make(dev, {1, 4}), y = make(dev, {1, 4}), dg = make(dev, {1, 4}),
               du = make(dev, {1, 4});
  set(gate, std::vector<float>{-200, 200, -30000, 30000});
  op::fill(dev, up, 1);
  op::swiglu_forward(dev, y, gate, up);
  CHECK(std::fabs(y.f32()[0]) < 1e-30f);
  CHECK(y.f32()[1] == 200.0f);
  CHECK(std::fabs(y.f32()[2]) < 1e-30f);
  CHECK(y.f32()[3] == 30000.0f);
  op::swiglu_backward(dev, dg, du, up, gate, up);
  CHECK(std::fabs(dg.f32()[0]) < 1e-30f);
  CHECK(dg.f32()[1] == 1.0f);
}

TEST_CASE("row ops: the bits do not depend on the number of threads") {
  const std::int64_t N = 1500, C = 100, T = 150, H = 10, D = 10, V = 9;
  TestDevice one(1), two(2), five(5);
  std::vector<Tensor> results[3];
  TestDevice* devices[] = {&one, &two, &five};
  for (int i = 0; i < 3; ++i) {
    Device& dev = *devices[i];
    const Tensor x = random(dev, {N, C}, "x"), b = random(dev, {N, C}, "b"), w = random(dev, {C}, "w"),
                 tokens = random_ints(dev, {N}, "t", 0, V);
    const Tensor y = make(dev, {N, C}), sum = make(dev, {N, C}), rstd = make(dev, {N}), dx = make(dev, {N, C});
    const Tensor dw = random(dev, {C}, "dw"), table = make(dev, {T, D / 2, 2});
    op::add_rmsnorm_forward(dev, sum, y, rstd, x, b, w, 1e-6f);
    op::rmsnorm_backward(dev, dx, dw, b, sum, w, rstd, Write::overwrite);
    const Tensor de = random(dev, {V, C}, "de");
    op::embedding_backward(dev, de, b, tokens);
    op::rope_table(dev, table, 100);
    const Tensor turned = clone(dev, x).view({N / T, T, H, D});
    op::rope_forward(dev, turned, table, 1);
    const Tensor s = make(dev, {N, C}), dg = make(dev, {N, C}), du = make(dev, {N, C});
    op::swiglu_forward(dev, s, x, b);
    op::swiglu_backward(dev, dg, du, y, x, b);
    results[i] = {y, sum, rstd, dx, dw, de, table, turned, s, dg, du};
  }
  for (std::size_t i = 0; i < results[0].size(); ++i) {
    INFO("result " << i);
    CHECK(same_bits(results[0][i], results[1][i]));
    CHECK(same_bits(results[0][i], results[2][i]));
  }
}

TEST_CASE("row ops: NaN in gives NaN out") {
  TestDevice dev;
  const Tensor x = random(dev, {2, 19}, "x"), w = random(dev, {19}, "w"), y = make(dev, {2, 19}), rstd = make(dev, {2});
  x.f32()[18] = std::numeric_limits<float>::quiet_NaN();
  op::rmsnorm_forward(dev, y, rstd, x, w, 1e-5f);
  CHECK(std::isnan(y.f32()[0]));
  CHECK(std::isfinite(y.f32()[19]));
  const Tensor up = random(dev, {2, 19}, "up");
  op::swiglu_forward(dev, y, x, up);
  CHECK(std::isnan(y.f32()[18]));
  CHECK(std::isfinite(y.f32()[17]));
}
