#include "branch_case.h"

using namespace nsa;
using namespace nsa::test;

namespace {

void check_case(const ref::NsaSizes& z, double scale, double limit) {
  INFO(describe(z));
  TestDevice dev;
  const BranchInputs x(dev, z, z.Tc(), scale);
  const auto q = values(x.q), k = values(x.k), v = values(x.v);
  const auto want = ref::attend_compressed_forward(z, q, k, v);
  const BranchForward got(dev, z);
  op::attend_compressed_forward(dev, got.o, got.lse, x.q, x.k, x.v, z.geometry);
  check_close("o", got.o, want.o, limit);
  check_close("lse", got.lse, want.lse, limit);

  const auto want_d = ref::attend_backward(z, z.Tc(), values(x.d_o), want.p, q, k, v);
  const Tensor delta = make_delta(dev, z, want.o, x.d_o);
  const BranchBackward d(dev, z, z.Tc());
  op::attend_compressed_backward(dev, d.dq, d.dk, d.dv, x.d_o, delta, got.lse, x.q, x.k, x.v, z.geometry,
                                 Write::overwrite);
  check_close("dq", d.dq, want_d.dq, limit);
  check_close("dkc", d.dk, want_d.dk, limit);
  check_close("dvc", d.dv, want_d.dv, limit);

  // Write::add keeps what was there.
  const Tensor dq2 = random(dev, d.dq.shape, "dq before"), before = clone(dev, dq2);
  op::attend_compressed_backward(dev, dq2, d.dk, d.dv, x.d_o, delta, got.lse, x.q, x.k, x.v, z.geometry, Write::add);
  std::vector<double> sum = values(before);
  for (std::size_t i = 0; i < sum.size(); ++i) sum[i] += want_d.dq[i];
  check_close("dq added", dq2, sum, limit);
}

}  // namespace

TEST_CASE("attend_compressed equals the reference, forward and backward") {
  for_each_case([](const ref::NsaSizes& z) { check_case(z, 1, tolerance(DType::f32)); });
}

TEST_CASE("attend_compressed with large logits") {
  // several key blocks, so that the running maximum moves; |logits| up to about 80: a float lse of 80 is known to 4e-6,
  // and so is every recomputed p
  check_case({.B = 1, .T = 700, .H = 4, .Hkv = 2, .Dk = 16, .Dv = 16, .geometry = small_nsa()}, 4.5, 5e-5);
}

TEST_CASE("attend_compressed: a query that sees nothing gives exactly 0 and +inf") {
  TestDevice dev;
  const ref::NsaSizes z{
      .B = 2, .T = 40, .H = 4, .Hkv = 2, .Dk = 8, .Dv = 8, .geometry = {}};  // l = 32: tokens 0 .. 30 see nothing
  const BranchInputs x(dev, z, z.Tc());
  const BranchForward y(dev, z);
  const BranchBackward d(dev, z, z.Tc());
  op::attend_compressed_forward(dev, y.o, y.lse, x.q, x.k, x.v, z.geometry);
  const Tensor delta = random(dev, {z.B, z.T, z.H}, "delta");
  op::attend_compressed_backward(dev, d.dq, d.dk, d.dv, x.d_o, delta, y.lse, x.q, x.k, x.v, z.geometry,
                                 Write::overwrite);
  for (std::int64_t row = 0; row < z.B * z.T * z.H; ++row) {
    const bool sees = row / z.H % z.T >= 31;
    CHECK(std::isinf(y.lse.f32()[row]) == !sees);
    for (std::int64_t e = 0; e < z.Dv; ++e) CHECK((y.o.f32()[row * z.Dv + e] != 0) == sees);
    if (!sees)
      for (std::int64_t e = 0; e < z.Dk; ++e) CHECK(d.dq.f32()[row * z.Dk + e] == 0);
  }
}

TEST_CASE("attend_compressed: NaN in a key is seen by its queries, not hidden") {
  TestDevice dev;
  const ref::NsaSizes z{.B = 1, .T = 64, .H = 2, .Hkv = 1, .Dk = 8, .Dv = 8, .geometry = small_nsa()};
  const BranchInputs x(dev, z, z.Tc());
  x.k.f32()[3 * z.Dk] = std::numeric_limits<float>::quiet_NaN();
  const BranchForward y(dev, z);
  op::attend_compressed_forward(dev, y.o, y.lse, x.q, x.k, x.v, z.geometry);
  const std::int64_t first = 3 * z.geometry.d + z.geometry.l - 1;
  for (std::int64_t row = 0; row < z.T * z.H; ++row) CHECK(std::isnan(y.o.f32()[row * z.Dv]) == (row / z.H >= first));
}

TEST_CASE("attend_compressed gives the same bits on any number of threads") {
  const ref::NsaSizes z{.B = 2, .T = 333, .H = 6, .Hkv = 2, .Dk = 20, .Dv = 12, .geometry = small_nsa()};
  TestDevice one(1), other(3);
  const auto run = [&](Device& dev, const BranchForward& y, const BranchBackward& d) {
    const BranchInputs x(dev, z, z.Tc());
    op::attend_compressed_forward(dev, y.o, y.lse, x.q, x.k, x.v, z.geometry);
    op::attend_compressed_backward(dev, d.dq, d.dk, d.dv, x.d_o, random(dev, {z.B, z.T, z.H}, "delta"), y.lse, x.q, x.k,
                                   x.v, z.geometry, Write::overwrite);
  };
  const BranchForward y1(one, z), y3(other, z);
  const BranchBackward d1(one, z, z.Tc()), d3(other, z, z.Tc());
  run(one, y1, d1);
  run(other, y3, d3);
  CHECK((same_bits(y1.o, y3.o) && same_bits(y1.lse, y3.lse)));
  CHECK((same_bits(d1.dq, d3.dq) && same_bits(d1.dk, d3.dk) && same_bits(d1.dv, d3.dv)));
}

TEST_CASE("attend_compressed takes the memory it plans") {
  for (std::int64_t T : {5, 300})
    check_plan([&](Device& dev) {
      const ref::NsaSizes z{.B = 2, .T = T, .H = 6, .Hkv = 2, .Dk = 20, .Dv = 12, .geometry = small_nsa()};
      const BranchBackward x(dev, z, z.Tc()), d(dev, z, z.Tc());  // q, k, v and their gradients
      const BranchForward y(dev, z), dy(dev, z);                  // o, lse and d_o, delta
      op::attend_compressed_forward(dev, y.o, y.lse, x.dq, x.dk, x.dv, z.geometry);
      op::attend_compressed_backward(dev, d.dq, d.dk, d.dv, dy.o, dy.lse, y.lse, x.dq, x.dk, x.dv, z.geometry,
                                     Write::overwrite);
    });
}
