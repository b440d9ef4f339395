#include "ops/cpu/onednn_gemm.h"
#include "ops/ops.h"
#include "ref/ops.h"

using namespace nsa;
using namespace nsa::test;

namespace {

struct Sizes {
  std::int64_t N, I, O;
};
std::size_t u(std::int64_t n) { return static_cast<std::size_t>(n); }

}  // namespace

TEST_CASE("matmul: all three forms against the reference, odd sizes") {
  const Sizes sizes = GENERATE(Sizes{1, 1, 1}, Sizes{1, 33, 7}, Sizes{7, 1, 33}, Sizes{33, 7, 1}, Sizes{17, 65, 31},
                               Sizes{64, 128, 96}, Sizes{5, 300, 3}, Sizes{100, 512, 1024},
                               Sizes{150, 530, 520},  // strides of 2 KiB are copied; several tiles with ragged ends
                               Sizes{4100, 17, 20}, Sizes{20, 4100, 17}, Sizes{17, 128, 4100});  // sums in stretches
  const Kind kind = any_kind();
  const auto [N, I, O] = sizes;
  INFO(describe(kind));
  TestDevice dev(kind);
  const Tensor x = random(dev, {N, I}, "x", kind.type), w = random(dev, {O, I}, "w", kind.type),
               dy = random(dev, {N, O}, "dy", kind.type);
  const auto y_ref = ref::matmul_forward(values(x), values(w), u(N), u(I), u(O));
  const auto dx_ref = ref::matmul_backward_input(values(dy), values(w), u(N), u(I), u(O));
  auto dw_ref = ref::matmul_backward_weight(values(dy), values(x), u(N), u(I), u(O));

  const Tensor y = make(dev, {N, O}, kind.type), dx = make(dev, {N, I}, kind.type), y_sums = make(dev, {N, O});
  op::matmul_forward(dev, y, x, w, Write::overwrite);  // y is full of NaN: overwriting must not read it
  check_rounded("y", y, y_ref);
  op::matmul_backward_input(dev, dx, dy, w, Write::overwrite);
  check_rounded("dx", dx, dx_ref);
  op::matmul_forward(dev, y_sums, x, w, Write::overwrite);
  check_close("y in f32", y_sums, y_ref);

  const Tensor y_add = random(dev, {N, O}, "before", kind.type), dx_add = random(dev, {N, I}, "before", kind.type),
               dw = random(dev, {O, I}, "before");
  auto y_want = values(y_add), dx_want = values(dx_add);
  const auto dw_before = values(dw);
  for (std::size_t i = 0; i < y_want.size(); ++i) y_want[i] += y_ref[i];
  for (std::size_t i = 0; i < dx_want.size(); ++i) dx_want[i] += dx_ref[i];
  for (std::size_t i = 0; i < dw_ref.size(); ++i) dw_ref[i] += dw_before[i];
  op::matmul_forward(dev, y_add, x, w, Write::add);
  check_rounded("y +=", y_add, y_want);
  op::matmul_backward_input(dev, dx_add, dy, w, Write::add);
  check_rounded("dx +=", dx_add, dx_want);
  op::matmul_backward_weight(dev, dw, dy, x);
  check_close("dw +=", dw, dw_ref);
}

TEST_CASE("matmul: a sum is rounded once, at its end") {
  const Kind kind = any_kind();
  INFO(describe(kind));
  TestDevice dev(kind);
  const std::int64_t I =
      5000;  // several stretches; the numbers of one are lost beside 256 in bf16, all of them are not
  const Tensor x = make(dev, {1, I}, kind.type), w = make(dev, {1, I}, kind.type), y = make(dev, {1, 1}, kind.type);
  op::fill(dev, x, 1);
  op::fill(dev, w, 1 / 1024.0f);
  set_at(w, 0, 256);
  const double sum = 256 + 4999 / 1024.0;
  op::matmul_forward(dev, y, x, w, Write::overwrite);
  check_rounded("y", y, {sum});
  op::fill(dev, y, -256);
  op::matmul_forward(dev, y, x, w, Write::add);
  check_rounded("y +=", y, {sum - 256});
}

TEST_CASE("gemm: operands inside wider matrices") {
  const Kind kind = any_kind();
  const cpu::GemmForm form = GENERATE(cpu::GemmForm::nn, cpu::GemmForm::nt, cpu::GemmForm::tn);
  const DType out = GENERATE(DType::f32, DType::bf16);
  const std::int64_t M = 19, N = 21, K = 40, lda = GENERATE(41, 512), ldb = 50, ldc = 30;
  if (kind.type == DType::f32 && out == DType::bf16) return;
  INFO(describe(kind));
  TestDevice dev(kind);
  const Tensor a = random(dev, {form == cpu::GemmForm::tn ? K : M, lda}, "a", kind.type),
               b = random(dev, {form == cpu::GemmForm::nt ? N : K, ldb}, "b", kind.type);
  const Tensor c = random(dev, {M, ldc}, "c", out);
  const auto a_at = values(a), b_at = values(b);
  auto want = values(c);
  for (std::int64_t m = 0; m < M; ++m)
    for (std::int64_t n = 0; n < N; ++n)
      for (std::int64_t k = 0; k < K; ++k) {
        const double a_mk = a_at[u(form == cpu::GemmForm::tn ? k * lda + m : m * lda + k)];
        want[u(m * ldc + n)] += a_mk * b_at[u(form == cpu::GemmForm::nt ? n * ldb + k : k * ldb + n)];
      }
  cpu::gemm(dev, {form, M, N, K, lda, ldb, ldc}, a, b, c, Write::add);
  check_rounded("c", c, want);
}

TEST_CASE("matmul: no rows, and sums of nothing") {
  const Kind kind = any_kind();
  INFO(describe(kind));
  TestDevice dev(kind);
  const Tensor x = make(dev, {0, 4}, kind.type), w = random(dev, {3, 4}, "w", kind.type),
               y = make(dev, {0, 3}, kind.type), dw = random(dev, {3, 4}, "dw");
  const auto before = values(dw);
  op::matmul_forward(dev, y, x, w, Write::overwrite);
  op::matmul_backward_input(dev, x, y, w, Write::overwrite);
  op::matmul_backward_weight(dev, dw, y, x);
  check_close("dw", dw, before, 0);
  const Tensor c = make(dev, {2, 3}, kind.type);
  cpu::gemm(dev, {cpu::GemmForm::tn, 2, 3, 0}, y, y, c, Write::overwrite);
  check_close("c", c, std::vector<double>(6, 0.0), 0);
}

TEST_CASE("matmul: leading dims count as rows") {
  const Kind kind = any_kind();
  INFO(describe(kind));
  TestDevice dev(kind);
  const Tensor x = random(dev, {2, 3, 8}, "x", kind.type), w = random(dev, {5, 8}, "w", kind.type),
               y = make(dev, {2, 3, 5}, kind.type);
  op::matmul_forward(dev, y, x, w, Write::overwrite);
  check_rounded("y", y, ref::matmul_forward(values(x), values(w), 6, 8, 5));
}

TEST_CASE("matmul: the bits do not depend on the number of threads") {
  // most of these differ when oneDNN cuts them for the number of threads
  const Sizes sizes =
      GENERATE(Sizes{1, 768, 768}, Sizes{768, 128, 128}, Sizes{768, 128, 344}, Sizes{2048, 64, 64}, Sizes{3000, 33, 7},
               Sizes{16, 64, 3000}, Sizes{256, 384, 65}, Sizes{4096, 16, 16}, Sizes{512, 512, 512});
  const Kind kind = any_kind();
  const auto [N, I, O] = sizes;
  INFO(describe(kind));
  TestDevice base(kind);
  const Tensor x = random(base, {N, I}, "x", kind.type), w = random(base, {O, I}, "w", kind.type),
               dy = random(base, {N, O}, "dy", kind.type);
  const Tensor y = make(base, {N, O}, kind.type), dx = make(base, {N, I}, kind.type), dw = random(base, {O, I}, "dw");
  const Tensor y1 = clone(base, y), dx1 = clone(base, dx), dw1 = clone(base, dw), dw0 = clone(base, dw);
  op::matmul_forward(base, y1, x, w, Write::overwrite);
  op::matmul_backward_input(base, dx1, dy, w, Write::overwrite);
  op::matmul_backward_weight(base, dw1, dy, x);
  for (int threads : {2, 3, 8}) {
    TestDevice dev(kind, threads, 64, 1);
    op::copy(dev, dw, dw0);
    op::matmul_forward(dev, y, x, w, Write::overwrite);
    op::matmul_backward_input(dev, dx, dy, w, Write::overwrite);
    op::matmul_backward_weight(dev, dw, dy, x);
    INFO("N " << N << " I " << I << " O " << O << ", " << threads << " threads");
    CHECK(same_bits(y, y1));
    CHECK(same_bits(dx, dx1));
    CHECK(same_bits(dw, dw1));
  }
}

TEST_CASE("matmul: NaN in gives NaN out") {
  const Kind kind = any_kind();
  INFO(describe(kind));
  TestDevice dev(kind);
  const Tensor x = random(dev, {4, 8}, "x", kind.type), w = random(dev, {5, 8}, "w", kind.type),
               y = make(dev, {4, 5}, kind.type);
  set_at(x, 2 * 8 + 3, std::numeric_limits<float>::quiet_NaN());
  op::matmul_forward(dev, y, x, w, Write::overwrite);
  for (std::size_t o = 0; o < 5; ++o) CHECK(std::isnan(values(y)[2 * 5 + o]));
  CHECK(std::isfinite(values(y)[0]));
}
