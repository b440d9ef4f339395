// Gates against the reference: any head size, any number of threads, in-place gradients.
#include "nsa/ops.h"
#include "error_of.h"
#include "ref/compare.h"
#include "ref/nsa.h"

using namespace nsa;
using namespace nsa::test;

namespace {

struct GateCase {
  std::int64_t N, H, Dv;
  std::int64_t rows() const { return N * H; }
};

void check_gates(const GateCase& s, const Kind& kind, int threads, double logit_scale) {
  INFO("N " << s.N << " H " << s.H << " Dv " << s.Dv << " threads " << threads << ", " << describe(kind));
  TestDevice dev(kind, threads, 1);
  const Shape by_head{s.N, s.H, s.Dv};
  const Tensor gates = random(dev, {s.N, s.H, 3}, "logits", logit_scale), o = make(dev, by_head, kind.type),
               d_o = random(dev, by_head, "d_o", kind.type);
  const Tensor o_cmp = random(dev, by_head, "cmp", kind.type), o_slc = random(dev, by_head, "slc", kind.type),
               o_win = random(dev, by_head, "win", kind.type);
  const Tensor d_logits = make(dev, gates.shape, kind.type), delta = make(dev, {3, s.N, s.H});

  std::vector<double> g = values(gates);
  for (double& x : g) x = ref::sigmoid(x);
  const std::vector<double> cmp = values(o_cmp), slc = values(o_slc), win = values(o_win);
  const auto want = ref::gate_backward(s.rows(), s.Dv, values(d_o), g, cmp, slc, win);

  op::gate_forward(dev, o, gates, o_cmp, o_slc, o_win);
  check_close("gates", gates, g);
  check_rounded("o", o, ref::gate_forward(s.rows(), s.Dv, g, cmp, slc, win));
  op::gate_backward(dev, d_logits, delta, o_cmp, o_slc, o_win, gates, d_o);
  check_rounded("d_logits", d_logits, want.d_logits);
  check_close("delta", delta, want.delta);
  check_rounded("d_o_cmp", o_cmp, want.d_o_cmp);
  check_rounded("d_o_slc", o_slc, want.d_o_slc);
  check_rounded("d_o_win", o_win, want.d_o_win);
  CHECK(dev.work.peak() == 0);
}

}  // namespace

TEST_CASE("gates match the reference, forward and backward", "[gate]") {
  for (const GateCase& s :
       {GateCase{1, 1, 1}, {3, 2, 5}, {7, 4, 8}, {5, 3, 24}, {33, 4, 64}, {9, 5, 130}, {513, 2, 16}, {2, 1, 20000}})
    for (const Kind& kind : all_kinds())
      for (int threads : {1, 2}) check_gates(s, kind, threads, 1);
}

TEST_CASE("gates that are shut or wide open stay finite", "[gate]") {
  const Kind kind = any_kind();
  check_gates({40, 2, 16}, kind, 1, 20);
  TestDevice dev(kind, 1, 1);
  const Tensor gates = make(dev, {2, 1, 3}), o = make(dev, {2, 1, 4}, kind.type), ones = clone(dev, o);
  set(gates, std::vector<double>{-1e4, 1e4, -200, 200, 0, -88});
  set(ones, std::vector<double>(8, 1));
  op::gate_forward(dev, o, gates, ones, ones, ones);
  check_close("gates", gates, std::vector<double>{0, 1, 0, 1, 0.5, 0}, 1e-7);
}

TEST_CASE("a NaN gate or output is seen, in its row only", "[gate]") {
  const Kind kind = any_kind();
  INFO(describe(kind));
  TestDevice dev(kind, 1, 1);
  const Tensor gates = random(dev, {3, 1, 3}, "logits"), o = make(dev, {3, 1, 7}, kind.type);
  const Tensor a = random(dev, o.shape, "a", kind.type), b = random(dev, o.shape, "b", kind.type),
               c = random(dev, o.shape, "c", kind.type);
  set_at(gates, 4, std::numeric_limits<float>::quiet_NaN());
  op::gate_forward(dev, o, gates, a, b, c);
  for (std::size_t k = 0; k < 21; ++k) CHECK(std::isnan(values(o)[k]) == (k / 7 == 1));
}

TEST_CASE("gate fronts name the tensor that does not fit", "[gate]") {
  TestDevice dev(1, 1);
  const Tensor gates = random(dev, {3, 2, 3}, "logits"), o = make(dev, {3, 2, 4});
  const Tensor a = make(dev, o.shape), b = make(dev, o.shape), short_c = make(dev, {3, 2, 3});
  CHECK(error_of([&] {
          op::gate_forward(dev, o, gates, a, b, short_c);
        }).rfind("gate_forward: o_win is (3, 2, 3), expected (N,H,Dv) = (3, 2, 4); ", 0) == 0);
  CHECK(error_of([&] {
          op::gate_backward(dev, gates, make(dev, {3, 2, 3}), a, b, o, gates, o);
        }).rfind("gate_backward: delta is (3, 2, 3), expected (3,N,H) = (3, 3, 2); ", 0) == 0);
  CHECK(error_of([&] {
          op::gate_forward(dev, o, gates.view({6, 3}), a, b, b);
        }).rfind("gate_forward: gates is (6, 3), expected (N,H,3) = (3, 2, 3); ", 0) == 0);
}
