#include "branch_case.h"

using namespace nsa;
using namespace nsa::test;

namespace {

void check_case(const Kind& kind, const ref::NsaSizes& z, double scale = 1, double limit = tolerance(DType::f32)) {
  INFO(describe(kind) << ", " << describe(z));
  TestDevice dev(kind);
  const BranchInputs x(dev, z, z.Tc(), kind.type, scale);
  const auto q = values(x.q), k = values(x.k), v = values(x.v);
  const BranchReference want(x, [&](auto store) { return ref::attend_compressed_forward(z, q, k, v, store); });
  const BranchForward y(dev, z, kind.type);
  op::attend_compressed_forward(dev, y.o, y.lse, x.q, x.k, x.v, z.geometry);
  want.check(y, limit);

  const Tensor delta = make_delta(dev, z, want.y.o, x.d_o);
  const BranchBackward d(dev, z, z.Tc(), kind.type);
  op::attend_compressed_backward(dev, d.dq, d.dk, d.dv, x.d_o, delta, y.lse, x.q, x.k, x.v, z.geometry,
                                 Write::overwrite);
  want.check(d, limit);

  const Tensor before = random(dev, d.dq.shape, "dq before", kind.type), dq = clone(dev, before);
  op::attend_compressed_backward(dev, dq, d.dk, d.dv, x.d_o, delta, y.lse, x.q, x.k, x.v, z.geometry, Write::add);
  want.check_added(dq, before, limit);
}

}  // namespace

TEST_CASE("attend_compressed equals the reference, forward and backward") {
  const Kind kind = GENERATE(from_range(all_kinds()));
  for_each_case([&](const ref::NsaSizes& z) { check_case(kind, z); });
}

TEST_CASE("attend_compressed with large logits") {
  // several key blocks, so that the running maximum moves; |logits| up to about 80: a float lse of 80 is known to 4e-6,
  // and so is every recomputed p
  const Kind kind = GENERATE(from_range(all_kinds()));
  check_case(kind, {.B = 1, .T = 700, .H = 4, .Hkv = 2, .Dk = 16, .Dv = 16, .geometry = small_nsa()}, 4.5, 5e-5);
}

TEST_CASE("attend_compressed: a query that sees nothing gives exactly 0 and +inf") {
  const Kind kind = GENERATE(from_range(all_kinds()));
  INFO(describe(kind));
  TestDevice dev(kind);
  const ref::NsaSizes z{
      .B = 2, .T = 40, .H = 4, .Hkv = 2, .Dk = 8, .Dv = 8, .geometry = {}};  // l = 32: tokens 0 .. 30 see nothing
  const BranchInputs x(dev, z, z.Tc(), kind.type);
  const BranchForward y(dev, z, kind.type);
  const BranchBackward d(dev, z, z.Tc(), kind.type);
  op::attend_compressed_forward(dev, y.o, y.lse, x.q, x.k, x.v, z.geometry);
  const Tensor delta = random(dev, {z.B, z.T, z.H}, "delta");
  op::attend_compressed_backward(dev, d.dq, d.dk, d.dv, x.d_o, delta, y.lse, x.q, x.k, x.v, z.geometry,
                                 Write::overwrite);
  const auto o = values(y.o), lse = values(y.lse), dq = values(d.dq);
  for (std::int64_t row = 0; row < z.B * z.T * z.H; ++row) {
    const bool sees = row / z.H % z.T >= 31;
    CHECK(std::isinf(lse[row]) == !sees);
    for (std::int64_t e = 0; e < z.Dv; ++e) CHECK((o[row * z.Dv + e] != 0) == sees);
    if (!sees)
      for (std::int64_t e = 0; e < z.Dk; ++e) CHECK(dq[row * z.Dk + e] == 0);
  }
}

TEST_CASE("attend_compressed: NaN in a key is seen by its queries, not hidden") {
  const Kind kind = GENERATE(from_range(all_kinds()));
  INFO(describe(kind));
  TestDevice dev(kind);
  const ref::NsaSizes z{.B = 1, .T = 64, .H = 2, .Hkv = 1, .Dk = 8, .Dv = 8, .geometry = small_nsa()};
  const BranchInputs x(dev, z, z.Tc(), kind.type);
  set_at(x.k, 3 * z.Dk, std::numeric_limits<double>::quiet_NaN());
  const BranchForward y(dev, z, kind.type);
  op::attend_compressed_forward(dev, y.o, y.lse, x.q, x.k, x.v, z.geometry);
  const std::int64_t first = 3 * z.geometry.d + z.geometry.l - 1;
  const auto o = values(y.o);
  for (std::int64_t row = 0; row < z.T * z.H; ++row) CHECK(std::isnan(o[row * z.Dv]) == (row / z.H >= first));
}

TEST_CASE("attend_compressed gives the same bits on any number of threads") {
  const Kind kind = GENERATE(from_range(all_kinds()));
  INFO(describe(kind));
  const ref::NsaSizes z{.B = 2, .T = 333, .H = 6, .Hkv = 2, .Dk = 20, .Dv = 12, .geometry = small_nsa()};
  TestDevice one(kind, 1), other(kind, 3);
  const auto run = [&](Device& dev, const BranchForward& y, const BranchBackward& d) {
    const BranchInputs x(dev, z, z.Tc(), kind.type);
    op::attend_compressed_forward(dev, y.o, y.lse, x.q, x.k, x.v, z.geometry);
    op::attend_compressed_backward(dev, d.dq, d.dk, d.dv, x.d_o, random(dev, {z.B, z.T, z.H}, "delta"), y.lse, x.q, x.k,
                                   x.v, z.geometry, Write::overwrite);
  };
  const BranchForward y1(one, z, kind.type), y3(other, z, kind.type);
  const BranchBackward d1(one, z, z.Tc(), kind.type), d3(other, z, z.Tc(), kind.type);
  run(one, y1, d1);
  run(other, y3, d3);
  CHECK((same_bits(y1.o, y3.o) && same_bits(y1.lse, y3.lse)));
  CHECK((same_bits(d1.dq, d3.dq) && same_bits(d1.dk, d3.dk) && same_bits(d1.dv, d3.dv)));
}

TEST_CASE("attend_compressed takes the memory it plans") {
  const DType type = GENERATE(DType::f32, DType::bf16);
  for (std::int64_t T : {5, 300})
    check_plan([&](Device& dev) {
      const ref::NsaSizes z{.B = 2, .T = T, .H = 6, .Hkv = 2, .Dk = 20, .Dv = 12, .geometry = small_nsa()};
      const BranchBackward x(dev, z, z.Tc(), type), d(dev, z, z.Tc(), type);  // q, k, v and their gradients
      const BranchForward y(dev, z, type), dy(dev, z, type);                  // o, lse and d_o, delta
      op::attend_compressed_forward(dev, y.o, y.lse, x.dq, x.dk, x.dv, z.geometry);
      op::attend_compressed_backward(dev, d.dq, d.dk, d.dv, dy.o, dy.lse, y.lse, x.dq, x.dk, x.dv, z.geometry,
                                     Write::overwrite);
    });
}
