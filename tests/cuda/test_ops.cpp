// The CUDA ops against the references of the CPU's, f32 and bf16, with and without 128-bit accesses, in several orders
// of threads, watched by the race checker.
#include "catch.h"
#include "cuda_on_cpu/race.h"
#include "cuda_on_cpu/schedule.h"
#include "ops/ops.h"
#include "ref/compare.h"
#include "ref/ops.h"

using namespace nsa;
using namespace nsa::test;

namespace {

std::size_t u(std::int64_t n) { return static_cast<std::size_t>(n); }

/// Arenas in CPU memory, which the emulated kernels reach and the race checker watches.
struct KernelDevice : TestDevice {
  KernelDevice() : TestDevice(1, 16, 16, Where::cpu) {
    cuda_on_cpu::schedule() = cuda_on_cpu::schedule_of(GENERATE(0u, 1u, 2u));
    for (Arena* arena : {&params, &work}) {
      ArenaScope scope(*arena);
      slabs_.push_back(arena->take(DType::f32, {1}, Purpose::scratch).data);
      cuda_on_cpu::race::own_device(slabs_.back(), arena->capacity(), 0);
    }
  }
  ~KernelDevice() {
    for (const void* slab : slabs_) cuda_on_cpu::race::disown_device(slab);
  }

 private:
  std::vector<const void*> slabs_;
};

DType any_type() { return GENERATE(DType::f32, DType::bf16); }

struct Rows {
  std::int64_t N, C;
};
Rows any_rows() { return GENERATE(Rows{1, 1}, Rows{3, 33}, Rows{40, 128}, Rows{5, 776}, Rows{70, 50}); }

std::vector<double> plus(std::vector<double> a, const std::vector<double>& b) {
  for (std::size_t i = 0; i < a.size(); ++i) a[i] += b[i];
  return a;
}

}  // namespace

TEST_CASE("cuda: rmsnorm, with and without the residual add") {
  const DType type = any_type();
  const auto [N, C] = any_rows();
  KernelDevice dev;
  const float eps = 1e-5f;
  const Tensor a = random(dev, {N, C}, "a", type), b = random(dev, {N, C}, "b", type),
               w = random(dev, {C}, "w", 0.3, 1, type), y = make(dev, {N, C}, type), rstd = make(dev, {N});
  cuda::rmsnorm_forward(dev, y, rstd, a, w, eps);
  check_rounded("y", y, ref::rmsnorm_forward(values(a), values(w), eps));
  check_close("rstd", rstd, ref::rmsnorm_rstd(values(a), u(C), eps));
  const Tensor sum = make(dev, {N, C}, type), y2 = make(dev, {N, C}, type), y3 = make(dev, {N, C}, type);
  cuda::add_rmsnorm_forward(dev, sum, y2, rstd, a, b, w, eps);
  check_rounded("sum", sum, plus(values(a), values(b)));
  check_rounded("y of the sum", y2, ref::rmsnorm_forward(values(sum), values(w), eps));
  cuda::add_rmsnorm_forward(dev, a, y3, rstd, a, b, w, eps);  // sum in place of a
  CHECK(same_bits(a, sum));
  CHECK(same_bits(y3, y2));
}

TEST_CASE("cuda: rmsnorm backward, both write modes, dx in place of dy") {
  const DType type = any_type();
  const auto [N, C] = any_rows();
  KernelDevice dev;
  const float eps = 1e-5f;
  const Tensor x = random(dev, {N, C}, "x", type), w = random(dev, {C}, "w", 0.3, 1, type),
               dy = random(dev, {N, C}, "dy", type), y = make(dev, {N, C}, type), rstd = make(dev, {N});
  cuda::rmsnorm_forward(dev, y, rstd, x, w, eps);
  const auto want = ref::rmsnorm_backward(values(dy), values(x), values(w), eps);
  const Tensor dw0 = random(dev, {C}, "dw"), dx = make(dev, {N, C}, type), dw = clone(dev, dw0);
  cuda::rmsnorm_backward(dev, dx, dw, dy, x, w, rstd, Write::overwrite);
  if (C > 1) check_rounded("dx", dx, want.dx);
  check_close("dw", dw, plus(want.dw, values(dw0)));
  const Tensor more = random(dev, {N, C}, "before", type), dw_again = clone(dev, dw0);
  const auto more_want = plus(want.dx, values(more));
  cuda::rmsnorm_backward(dev, more, dw_again, dy, x, w, rstd, Write::add);
  check_rounded("dx +=", more, more_want);
  CHECK(same_bits(dw_again, dw));
  const Tensor dw_place = clone(dev, dw0);
  cuda::rmsnorm_backward(dev, dy, dw_place, dy, x, w, rstd, Write::overwrite);
  CHECK(same_bits(dy, dx));
  CHECK(same_bits(dw_place, dw));
}

TEST_CASE("cuda: embedding") {
  const DType type = any_type();
  const auto [N, C] = any_rows();
  KernelDevice dev;
  const std::int64_t V = 300;
  const Tensor w = random(dev, {V, C}, "w", type), tokens = random_ints(dev, {N}, "tokens", 0, 7),
               y = make(dev, {N, C}, type);
  set_at(tokens, N - 1, 299);
  cuda::embedding_forward(dev, y, tokens, w);
  check_close("y", y, ref::embedding_forward(values(w), ints(tokens), u(C)), 0);
  const Tensor dy = random(dev, {N, C}, "dy", type), dw = random(dev, {V, C}, "dw");
  const auto want = plus(ref::embedding_backward(values(dy), ints(tokens), u(V), u(C)), values(dw));
  cuda::embedding_backward(dev, dw, dy, tokens);
  check_close("dw", dw, want);
}

TEST_CASE("cuda: rope") {
  struct Case {
    std::int64_t B, T, H, D, stride;
  };
  const DType type = any_type();
  const auto [B, T, H, D, stride] = GENERATE(Case{1, 1, 1, 2, 1}, Case{2, 5, 3, 6, 1}, Case{1, 9, 2, 64, 16},
                                             Case{2, 3, 1, 34, 4}, Case{1, 0, 2, 8, 1});
  KernelDevice dev;
  const Tensor table = make(dev, {(T ? T - 1 : 0) * stride + 1, D / 2, 2}), x = random(dev, {B, T, H, D}, "x", type),
               y = clone(dev, x), back = clone(dev, x);
  cuda::rope_table(dev, table, 10000);
  cuda::rope_forward(dev, y, table, stride);
  check_rounded("y", y, ref::rope(values(x), u(T), u(H), u(D), u(stride), 10000));
  cuda::rope_backward(dev, back, table, stride);
  check_rounded("dx", back, ref::rope(values(x), u(T), u(H), u(D), u(stride), 10000, -1));
}

TEST_CASE("cuda: swiglu, also in place, and where gates are large") {
  const DType type = any_type();
  const auto [N, F] = any_rows();
  KernelDevice dev;
  const Tensor gate = random(dev, {N, F}, "gate", 3, 0, type), up = random(dev, {N, F}, "up", type),
               dy = random(dev, {N, F}, "dy", type), y = make(dev, {N, F}, type);
  cuda::swiglu_forward(dev, y, gate, up);
  check_rounded("y", y, ref::swiglu_forward(values(gate), values(up)));
  const auto want = ref::swiglu_backward(values(dy), values(gate), values(up));
  const Tensor d_gate = make(dev, {N, F}, type), d_up = make(dev, {N, F}, type);
  cuda::swiglu_backward(dev, d_gate, d_up, dy, gate, up);
  check_rounded("d_gate", d_gate, want.d_gate);
  check_rounded("d_up", d_up, want.d_up);
  cuda::swiglu_backward(dev, gate, up, dy, gate, up);
  CHECK(same_bits(gate, d_gate));
  CHECK(same_bits(up, d_up));

  const Tensor far = make(dev, {1, 4}, type), ones = make(dev, {1, 4}, type), silu = make(dev, {1, 4}, type);
  set(far, std::vector<float>{-200, 200, -32768, 32768});
  cuda::fill(dev, ones, 1);
  cuda::swiglu_forward(dev, silu, far, ones);
  CHECK(values(silu) == std::vector<double>{0, 200, 0, 32768});
}

TEST_CASE("cuda: fill, copy, add, sums") {
  KernelDevice dev;
  const std::int64_t n = GENERATE(1, 31, 4096, 40001);
  const Tensor x = random(dev, {n}, "x"), narrow = make(dev, {n}, DType::bf16), wide = make(dev, {n});
  cuda::copy(dev, narrow, x);
  CHECK(values(narrow) == rounded_to_bf16(values(x)));
  cuda::copy(dev, wide, narrow);
  CHECK(values(wide) == values(narrow));
  const auto want = plus(values(wide), values(x));
  cuda::add(dev, wide, x);
  check_close("sum of two", wide, want, 1e-7);
  cuda::fill(dev, narrow, 0.1f);
  CHECK(values(narrow) == std::vector<double>(u(n), rounded_to_bf16(0.1f)));

  double sum = 0, squares = 0;
  for (const double v : values(x)) sum += v, squares += v * v;
  const Tensor result = make(dev, {1});
  cuda::sum(dev, result, x, Write::overwrite);
  CHECK(values(result)[0] == Approx(sum).epsilon(1e-6));
  cuda::sum_squares(dev, result, x, Write::add);
  CHECK(values(result)[0] == Approx(sum + squares).epsilon(1e-6));
}

TEST_CASE("cuda: sum of rows") {
  const auto [N, C] = any_rows();
  KernelDevice dev;
  const Tensor x = random(dev, {N, C}, "x"), result = make(dev, {C});
  cuda::sum_rows(dev, result, x);
  std::vector<double> want(u(C), 0);
  const auto v = values(x);
  for (std::size_t i = 0; i < v.size(); ++i) want[i % u(C)] += v[i];
  check_close("sums", result, want, 1e-6);
}

TEST_CASE("cuda: cross-entropy, ignored targets, vocabularies of any width") {
  struct Case {
    std::int64_t N, V;
    double spread;
  };
  const DType type = any_type();
  const auto [N, V, spread] =
      GENERATE(Case{1, 3, 1}, Case{7, 1, 1}, Case{9, 33, 3}, Case{3, 1024, 3}, Case{2, 5001, 30});
  KernelDevice dev;
  const Tensor x = random(dev, {N, V}, "logits", spread, 0, type), losses = make(dev, {N}), losses2 = make(dev, {N}),
               targets = random_ints(dev, {N}, "targets", 0, static_cast<std::int32_t>(V));
  if (N > 1) set_at(targets, N / 2, -1);
  const auto want = ref::cross_entropy_forward(values(x), ints(targets), u(V));
  const auto d_want = ref::cross_entropy_backward(values(x), ints(targets), u(V), 0.125);
  const Tensor before = clone(dev, x);
  cuda::cross_entropy_forward(dev, losses, x, targets);
  CHECK(same_bits(x, before));
  check_close("losses", losses, want);
  cuda::cross_entropy_forward_backward(dev, losses2, x, targets, 0.125f);
  CHECK(same_bits(losses, losses2));
  check_rounded("d_logits", x, d_want);
}

TEST_CASE("cuda: cross-entropy of extreme logits") {
  const DType type = any_type();
  KernelDevice dev;
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  const std::size_t V = 3000;
  const Tensor x = make(dev, {4, 3000}, type), targets = make(dev, {4}, DType::i32), losses = make(dev, {4});
  std::vector<float> logits(4 * V, -80);
  logits[5] = 80;                                                     // row 0: all the mass on one token
  for (std::size_t v = 0; v < 2048; ++v) logits[V + v] = -kInfinity;  // row 1: whole threads masked
  for (std::size_t v = 0; v < V; ++v) logits[2 * V + v] = 1e6f;       // row 2: equal and huge
  logits[3 * V + 1500] = std::numeric_limits<float>::quiet_NaN();     // row 3
  set(x, logits);
  set(targets, std::vector<int>{5, 2500, 0, 0});
  cuda::cross_entropy_forward_backward(dev, losses, x, targets, 1);
  const auto loss = values(losses), d = values(x);
  CHECK(loss[0] == Approx(0).margin(1e-6));
  CHECK(loss[1] == Approx(std::log(952.0)));
  CHECK(loss[2] == Approx(std::log(3000.0)).epsilon(1e-6));
  CHECK(std::isnan(loss[3]));
  CHECK(d[V] == 0);
  CHECK(d[V + 2500] == Approx(1 / 952.0 - 1).epsilon(type == DType::bf16 ? 1.0 / 256 : 1e-5));
}

TEST_CASE("cuda: adamw gives what the CPU's gives") {
  KernelDevice dev;
  const std::int64_t n = 7 * kAdamWRange;
  const Tensor ranges = make(dev, {3, 2}, DType::i32);
  set(ranges, std::vector<std::int32_t>{2, 1, 3, 0, 7, 1});
  const Tensor grad = random(dev, {n}, "grad");
  Tensor w[2], m[2], v[2], narrow[2];
  for (int i = 0; i < 2; ++i) {
    w[i] = random(dev, {n}, "w"), m[i] = random(dev, {n}, "m", 0.1), v[i] = random(dev, {n}, "v", 0.01, 0.1);
    narrow[i] = make(dev, {n}, DType::bf16);
  }
  AdamWStep step;
  step.lr = 0.01f, step.weight_decay = 0.1f, step.grad_scale = 0.5f, step.m_scale = 3, step.v_scale = 4;
  cpu::adamw(dev, w[0], m[0], v[0], narrow[0], grad, ranges, step);
  cuda::adamw(dev, w[1], m[1], v[1], narrow[1], grad, ranges, step);
  check_close("w", w[1], w[0], 1e-7);
  check_close("m", m[1], m[0], 1e-7);
  check_close("v", v[1], v[0], 1e-7);
  CHECK(values(narrow[1]) == rounded_to_bf16(values(w[1])));
  cuda::adamw(dev, w[1], m[1], v[1], {}, grad, ranges, step);  // without a copy
}
