// Embedding, RMSNorm, RoPE, SwiGLU against their references, in every type and place.
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
  const Kind kind = any_kind();
  const auto [N, C] = any_rows();
  INFO(describe(kind));
  const std::int64_t V = 5;
  TestDevice dev(kind);
  const Tensor w = random(dev, {V, C}, "w", kind.type), tokens = random_ints(dev, {N}, "tokens", 0, V),
               y = make(dev, {N, C}, kind.type);
  op::embedding_forward(dev, y, tokens, w);
  check_close("y", y, ref::embedding_forward(values(w), ints(tokens), u(C)), 0);
  const Tensor dy = random(dev, {N, C}, "dy", kind.type), dw = random(dev, {V, C}, "dw");
  const auto want = plus(ref::embedding_backward(values(dy), ints(tokens), u(V), u(C)), values(dw));
  op::embedding_backward(dev, dw, dy, tokens);
  check_close("dw", dw, want);
}

TEST_CASE("rmsnorm: forward, with and without the residual add") {
  const Kind kind = any_kind();
  const auto [N, C] = any_rows();
  INFO(describe(kind));
  const float eps = 1e-5f;
  TestDevice dev(kind);
  const Tensor a = random(dev, {N, C}, "a", kind.type), b = random(dev, {N, C}, "b", kind.type),
               w = random(dev, {C}, "w", 0.3, 1, kind.type);
  const Tensor y = make(dev, {N, C}, kind.type), rstd = make(dev, {N});
  op::rmsnorm_forward(dev, y, rstd, a, w, eps);
  check_rounded("y", y, ref::rmsnorm_forward(values(a), values(w), eps));
  check_close("rstd", rstd, ref::rmsnorm_rstd(values(a), u(C), eps));

  const Tensor sum = make(dev, {N, C}, kind.type), y2 = clone(dev, sum), y3 = clone(dev, sum);
  op::add_rmsnorm_forward(dev, sum, y2, rstd, a, b, w, eps);
  check_rounded("sum", sum, plus(values(a), values(b)));
  check_rounded("y of the sum", y2, ref::rmsnorm_forward(values(sum), values(w), eps));
  check_close("rstd of the sum", rstd, ref::rmsnorm_rstd(values(sum), u(C), eps));
  op::add_rmsnorm_forward(dev, a, y3, rstd, a, b, w, eps);  // sum in place of a
  CHECK(same_bits(a, sum));
  CHECK(same_bits(y3, y2));
}

TEST_CASE("rmsnorm: backward, both write modes, dx in place of dy") {
  const Kind kind = any_kind();
  const auto [N, C] = any_rows();
  INFO(describe(kind));
  const float eps = 1e-5f;
  TestDevice dev(kind);
  const Tensor x = random(dev, {N, C}, "x", kind.type), w = random(dev, {C}, "w", 0.3, 1, kind.type),
               dy = random(dev, {N, C}, "dy", kind.type);
  const Tensor y = make(dev, {N, C}, kind.type), rstd = make(dev, {N}), dw0 = random(dev, {C}, "dw");
  op::rmsnorm_forward(dev, y, rstd, x, w, eps);
  const auto want = ref::rmsnorm_backward(values(dy), values(x), values(w), eps);

  const Tensor dx = make(dev, {N, C}, kind.type), dw = clone(dev, dw0);
  op::rmsnorm_backward(dev, dx, dw, dy, x, w, rstd, Write::overwrite);
  if (C > 1) check_rounded("dx", dx, want.dx);  // C = 1: dx is eps-small, a difference of equal numbers
  check_close("dw", dw, plus(want.dw, values(dw0)));

  const Tensor dx_add = random(dev, {N, C}, "before", kind.type), dw_add = clone(dev, dw0);
  const auto dx_want = plus(want.dx, values(dx_add));
  op::rmsnorm_backward(dev, dx_add, dw_add, dy, x, w, rstd, Write::add);
  check_rounded("dx +=", dx_add, dx_want);
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
  const Kind kind = any_kind();
  const auto [B, T, H, D, stride] = GENERATE(Case{1, 1, 1, 2, 1}, Case{2, 5, 3, 6, 1}, Case{1, 9, 2, 64, 16},
                                             Case{2, 3, 1, 34, 4}, Case{1, 200, 4, 128, 1}, Case{1, 0, 2, 8, 1});
  INFO(describe(kind));
  const double theta = 10000;
  TestDevice dev(kind);
  const Tensor table = make(dev, {(T ? T - 1 : 0) * stride + 1, D / 2, 2}),
               x = random(dev, {B, T, H, D}, "x", kind.type), y = clone(dev, x);
  op::rope_table(dev, table, theta);
  op::rope_forward(dev, y, table, stride);
  check_rounded("y", y, ref::rope(values(x), u(T), u(H), u(D), u(stride), theta));
  const Tensor back = clone(dev, x);
  op::rope_backward(dev, back, table, stride);
  check_rounded("dx", back, ref::rope(values(x), u(T), u(H), u(D), u(stride), theta, -1));
  op::rope_backward(dev, y, table, stride);
  check_close("there and back", y, x, kind.type == DType::bf16 ? tolerance(kind.type) : 1e-6);
}

TEST_CASE("rope: angles are exact far out") {
  TestDevice dev;
  const Tensor table = make(dev, {100001, 1, 2});
  op::rope_table(dev, table, 10000);
  CHECK(table.f32()[200000] == static_cast<float>(std::cos(100000.0)));
  CHECK(table.f32()[200001] == static_cast<float>(std::sin(100000.0)));
}

TEST_CASE("swiglu: forward and backward, also in place") {
  const Kind kind = any_kind();
  const auto [N, F] = any_rows();
  INFO(describe(kind));
  TestDevice dev(kind);
  const Tensor gate = random(dev, {N, F}, "gate", 3, 0, kind.type), up = random(dev, {N, F}, "up", kind.type),
               dy = random(dev, {N, F}, "dy", kind.type), y = make(dev, {N, F}, kind.type);
  op::swiglu_forward(dev, y, gate, up);
  check_rounded("y", y, ref::swiglu_forward(values(gate), values(up)));
  const auto want = ref::swiglu_backward(values(dy), values(gate), values(up));
  const Tensor d_gate = clone(dev, y), d_up = clone(dev, y);
  op::swiglu_backward(dev, d_gate, d_up, dy, gate, up);
  check_rounded("d_gate", d_gate, want.d_gate);
  check_rounded("d_up", d_up, want.d_up);
  op::swiglu_backward(dev, gate, up, dy, gate, up);
  CHECK(same_bits(gate, d_gate));
  CHECK(same_bits(up, d_up));
}

TEST_CASE("swiglu: large gates saturate") {
  const Kind kind = any_kind();
  INFO(describe(kind));
  TestDevice dev(kind);
  const Tensor gate = make(dev, {1, 4}, kind.type), up = clone(dev, gate), y = clone(dev, gate), dg = clone(dev, gate),
               du = clone(dev, gate);
  set(gate, std::vector<float>{-200, 200, -32768, 32768});
  op::fill(dev, up, 1);
  op::swiglu_forward(dev, y, gate, up);
  const auto silu = values(y);
  CHECK(std::fabs(silu[0]) < 1e-30);
  CHECK(silu[1] == 200);
  CHECK(std::fabs(silu[2]) < 1e-30);
  CHECK(silu[3] == 32768);
  op::swiglu_backward(dev, dg, du, up, gate, up);
  CHECK(std::fabs(values(dg)[0]) < 1e-30);
  CHECK(values(dg)[1] == 1);
}

TEST_CASE("row ops: the bits do not depend on the number of threads") {
  const Kind kind = any_kind();
  INFO(describe(kind));
  const std::int64_t N = 1500, C = 100, T = 150, H = 10, D = 10, V = 9;
  TestDevice one(kind, 1), two(kind, 2), five(kind, 5);
  std::vector<Tensor> results[3];
  TestDevice* devices[] = {&one, &two, &five};
  for (int i = 0; i < 3; ++i) {
    Device& dev = *devices[i];
    const Tensor x = random(dev, {N, C}, "x", kind.type), b = random(dev, {N, C}, "b", kind.type),
                 w = random(dev, {C}, "w", kind.type), tokens = random_ints(dev, {N}, "t", 0, V);
    const auto like_x = [&] { return make(dev, {N, C}, kind.type); };
    const Tensor y = like_x(), sum = like_x(), rstd = make(dev, {N}), dx = like_x();
    const Tensor dw = random(dev, {C}, "dw"), table = make(dev, {T, D / 2, 2});
    op::add_rmsnorm_forward(dev, sum, y, rstd, x, b, w, 1e-6f);
    op::rmsnorm_backward(dev, dx, dw, b, sum, w, rstd, Write::overwrite);
    const Tensor de = random(dev, {V, C}, "de");
    op::embedding_backward(dev, de, b, tokens);
    op::rope_table(dev, table, 100);
    const Tensor turned = clone(dev, x).view({N / T, T, H, D});
    op::rope_forward(dev, turned, table, 1);
    const Tensor s = like_x(), dg = like_x(), du = like_x();
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
  const Kind kind = any_kind();
  INFO(describe(kind));
  TestDevice dev(kind);
  const Tensor x = random(dev, {2, 19}, "x", kind.type), w = random(dev, {19}, "w", kind.type),
               y = make(dev, {2, 19}, kind.type), rstd = make(dev, {2});
  set_at(x, 18, std::numeric_limits<float>::quiet_NaN());
  op::rmsnorm_forward(dev, y, rstd, x, w, 1e-5f);
  CHECK(std::isnan(values(y)[0]));
  CHECK(std::isfinite(values(y)[19]));
  const Tensor up = random(dev, {2, 19}, "up", kind.type);
  op::swiglu_forward(dev, y, x, up);
  CHECK(std::isnan(values(y)[18]));
  CHECK(std::isfinite(values(y)[17]));
}
