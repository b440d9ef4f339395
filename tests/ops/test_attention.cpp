// Causal attention against ref/attention.h: sizes that are multiples of nothing, groups, windows, large logits, thread
// counts, NaN, planning.
#include "ops/ops.h"
#include "ref/attention.h"
#include "ref/compare.h"

using namespace nsa;
using namespace nsa::test;
using nsa::ref::AttentionSizes;

namespace {

// Inputs and results of one call, all in the device's params arena.
struct Case {
  AttentionSizes z;
  Tensor q, k, v, d_o, o, lse, delta, dq, dk, dv;

  Case(Device& dev, const AttentionSizes& sizes, DType type, double scale = 1)
      : z(sizes),
        q(random(dev, {z.B, z.T, z.H, z.Dk}, "q", scale, 0, type)),
        k(random(dev, {z.B, z.T, z.Hkv, z.Dk}, "k", type)),
        v(random(dev, {z.B, z.T, z.Hkv, z.Dv}, "v", type)),
        d_o(random(dev, {z.B, z.T, z.H, z.Dv}, "d_o", type)),
        o(make(dev, d_o.shape, type)),
        lse(make(dev, {z.B, z.T, z.H})),
        delta(make(dev, lse.shape)),
        dq(make(dev, q.shape, type)),
        dk(make(dev, k.shape, type)),
        dv(make(dev, v.shape, type)) {}

  void forward(Device& dev) const { op::attention_forward(dev, o, lse, q, k, v, z.window); }
  void backward(Device& dev, Write mode = Write::overwrite) const {
    op::attention_delta(dev, delta, o, d_o);
    op::attention_backward(dev, dq, dk, dv, d_o, delta, lse, q, k, v, z.window, mode);
  }
  void run(Device& dev) const {
    forward(dev);
    backward(dev);
  }
  std::string str() const {
    return fmt::format("B {} T {} H {} Hkv {} Dk {} Dv {} window {}", z.B, z.T, z.H, z.Hkv, z.Dk, z.Dv, z.window);
  }
};

bool same_results(const Case& a, const Case& b) {
  return same_bits(a.o, b.o) && same_bits(a.lse, b.lse) && same_bits(a.dq, b.dq) && same_bits(a.dk, b.dk) &&
         same_bits(a.dv, b.dv);
}

// What a case must give, and what a plain bf16 program would.
struct Reference {
  ref::AttentionOutputs<double> y, plain;
  ref::AttentionGradients<double> d, plain_d;

  explicit Reference(const Case& c) {
    const auto q = values(c.q), k = values(c.k), v = values(c.v), d_o = values(c.d_o);
    y = ref::attention_forward(c.z, q, k, v);
    plain = ref::attention_forward(c.z, q, k, v, ToBf16());
    d = ref::attention_backward(c.z, d_o, q, k, v);
    plain_d = ref::attention_backward(c.z, d_o, q, k, v, ToBf16());
  }
  void check_forward(const Case& c, double limit = tolerance(DType::f32), double lse_limit = tolerance(DType::f32)) {
    check_close_to_plain("o", c.o, y.o, rounded_to_bf16(plain.o), limit);
    check_close("lse", c.lse, y.lse, lse_limit);
  }
};

void check_against_reference(const Kind& kind, const AttentionSizes& z, int threads, double scale = 1,
                             double limit = tolerance(DType::f32)) {
  TestDevice dev(kind, threads);
  const Case c(dev, z, kind.type, scale);
  c.run(dev);
  INFO(describe(kind) << ", " << c.str());
  Reference want(c);
  want.check_forward(c, limit, limit);
  if (z.T == 1 || z.window == 1) {  // the softmax is constant, dq and dk are 0: the error is measured absolutely
    check_close("dq", c.dq, want.d.dq, 1e-3);
    check_close("dk", c.dk, want.d.dk, 1e-3);
  } else {
    check_close_to_plain("dq", c.dq, want.d.dq, rounded_to_bf16(want.plain_d.dq), limit);
    check_close_to_plain("dk", c.dk, want.d.dk, rounded_to_bf16(want.plain_d.dk), limit);
  }
  check_close_to_plain("dv", c.dv, want.d.dv, rounded_to_bf16(want.plain_d.dv), limit);
}

}  // namespace

TEST_CASE("reference attention: backward is the gradient of forward") {
  for (const AttentionSizes& z : {AttentionSizes{2, 7, 4, 2, 3, 5, 0}, AttentionSizes{1, 9, 3, 1, 4, 2, 4}}) {
    TestDevice dev;
    const Case c(dev, z, DType::f32);
    const auto q = values(c.q), k = values(c.k), v = values(c.v), d_o = values(c.d_o);
    const auto g = ref::attention_backward<double>(z, d_o, q, k, v);
    using V = std::vector<Complex>;
    check_gradient("dq", g.dq, q, [&](const V& x) {
      return weighted_sum(ref::attention_forward<Complex>(z, x, lift(k), lift(v)).o, d_o);
    });
    check_gradient("dk", g.dk, k, [&](const V& x) {
      return weighted_sum(ref::attention_forward<Complex>(z, lift(q), x, lift(v)).o, d_o);
    });
    check_gradient("dv", g.dv, v, [&](const V& x) {
      return weighted_sum(ref::attention_forward<Complex>(z, lift(q), lift(k), x).o, d_o);
    });
  }
}

TEST_CASE("attention equals the reference for every T, group, width and window") {
  const Kind kind = GENERATE(from_range(all_kinds()));
  const std::int64_t groups[] = {1, 2, 3, 4, 8}, widths[] = {8, 16, 24, 64, 80};
  std::int64_t i = 0;
  for (std::int64_t T : {1, 7, 31, 33, 64, 65, 96, 97, 130, 257})
    for (std::int64_t window : {std::int64_t{0}, std::int64_t{1}, std::int64_t{5}, std::int64_t{64}, T + 3}) {
      const std::int64_t G = groups[i % 5], Hkv = T > 200 ? 1 : 1 + i % 2, B = T > 100 ? 1 : 1 + i % 3 / 2;
      check_against_reference(kind, {B, T, G * Hkv, Hkv, widths[(i / 2) % 5], widths[(i / 3 + i) % 5], window},
                              1 + static_cast<int>(i % 2));
      i += 1 + (window == 0);  // so that windows and groups do not go in step
    }
}

TEST_CASE("attention equals the reference for wide heads and odd sizes") {
  const Kind kind = GENERATE(from_range(all_kinds()));
  check_against_reference(kind, {1, 100, 4, 2, 192, 128, 0}, 2);
  check_against_reference(kind, {1, 130, 2, 1, 128, 192, 50}, 1);
  check_against_reference(kind, {2, 50, 5, 5, 1, 3, 0}, 2);
  check_against_reference(kind, {1, 40, 130, 1, 7, 9, 0}, 2);     // one query's group is more than a tile
  check_against_reference(kind, {1, 300, 6, 2, 20, 36, 200}, 2);  // a window of several blocks
  check_against_reference(kind, {3, 257, 2, 1, 17, 1, 100}, 2);
}

TEST_CASE("attention with logits of +-80 and beyond") {
  const Kind kind = GENERATE(from_range(all_kinds()));
  INFO(describe(kind));
  check_against_reference(kind, {1, 130, 2, 1, 16, 16, 0}, 1, 30,
                          1e-4);  // logits are that large in float: their rounding alone is 80 * 2^-24
  TestDevice dev(kind);
  const Case c(dev, {1, 200, 1, 1, 16, 16, 0}, kind.type);
  edit(c.q, [](auto& q) { std::fill(q.begin(), q.end(), 1.0f); });
  edit(c.k, [](auto& k) {  // q.k / 4 = +-80: all the mass on key 3
    std::fill(k.begin(), k.end(), -20.0f);
    std::fill_n(k.begin() + 3 * 16, 16, 20.0f);
  });
  c.run(dev);
  const auto v = values(c.v), o = values(c.o), lse = values(c.lse), dq = values(c.dq);
  CHECK(o[5] == Approx(v[5]));  // a query whose only key has a logit of -80
  CHECK(lse[0] == Approx(-80));
  for (std::size_t t = 3; t < 200; ++t) {
    CHECK(o[t * 16 + 5] == Approx(v[3 * 16 + 5]));
    CHECK(lse[t] == Approx(80));
    CHECK(dq[t * 16 + 5] == Approx(0).margin(1e-4));
  }
  // logits of -400: their exponential is 0 unless the maximum is taken off
  edit(c.k, [](auto& k) { std::fill(k.begin(), k.end(), -100.0f); });
  c.run(dev);
  CHECK(values(c.lse)[0] == Approx(-400));
  CHECK(values(c.o)[5] == Approx(v[5]));
}

TEST_CASE("attention whose logits leap from one block of keys to the next") {
  // after the first block logits (base 2) rise by 10, which rescales what was summed, or by 200, beyond what 2^x holds;
  // for some queries only
  const Kind kind = GENERATE(from_range(all_kinds()));
  INFO(describe(kind));
  for (double leap : {10.0, 200.0, -200.0}) {
    TestDevice dev(kind);
    const AttentionSizes z{1, 500, 1, 1, 16, 16, 0};
    const Case c(dev, z, kind.type);
    edit(c.q, [](auto& q) {
      for (std::size_t t = 0; t < 500; ++t) q[t * 16] = t % 3 ? 1.0f : 0.0f;
    });
    edit(c.k, [&](auto& k) {
      for (std::size_t t = 0; t < 500; ++t) k[t * 16] = t < 96 ? 0.0f : static_cast<float>(leap * 0.6931 * 4);
    });
    c.forward(dev);
    INFO("leap " << leap);
    Reference(c).check_forward(c, 1e-4);  // logits of 140: their rounding alone is 140 * 2^-24
  }
}

TEST_CASE("a window of T or more is full attention, to the bit") {
  const Kind kind = GENERATE(from_range(all_kinds()));
  INFO(describe(kind));
  TestDevice dev(kind, 2);
  for (std::int64_t T : {1, 50, 97, 210}) {
    const Case full(dev, {2, T, 4, 2, 24, 16, 0}, kind.type);
    full.run(dev);
    for (std::int64_t window : {T, T + 1, std::int64_t{1} << 40}) {
      const Case windowed(dev, {2, T, 4, 2, 24, 16, window}, kind.type);
      windowed.run(dev);
      CHECK(same_results(full, windowed));
    }
  }
}

TEST_CASE("a window of one returns the token's own value") {
  const Kind kind = GENERATE(from_range(all_kinds()));
  INFO(describe(kind));
  TestDevice dev(kind);
  const Case c(dev, {1, 120, 2, 2, 16, 16, 1}, kind.type);
  c.run(dev);
  check_close("o", c.o, c.v, 1e-6);
  check_close("dv", c.dv, c.d_o, 1e-6);
}

TEST_CASE("attention gives the same bits for any number of threads, twice") {
  const Kind kind = GENERATE(from_range(all_kinds()));
  INFO(describe(kind));
  for (const AttentionSizes& z :
       {AttentionSizes{1, 700, 4, 1, 32, 24, 0}, {2, 400, 4, 4, 16, 16, 150}, {1, 1000, 1, 1, 64, 64, 0}}) {
    TestDevice dev(kind, 1);
    const Case one(dev, z, kind.type);
    one.run(dev);
    for (int threads : {2, 3, 5, 2}) {
      dev.threads = threads;
      const Case many(dev, z, kind.type);
      many.run(dev);
      INFO(one.str() << ", threads " << threads);
      CHECK(same_results(one, many));
    }
  }
}

TEST_CASE("attention backward adds to dq when asked and never to dk, dv") {
  const Kind kind = GENERATE(from_range(all_kinds()));
  INFO(describe(kind));
  TestDevice dev(kind, 2);
  const AttentionSizes z{2, 70, 6, 2, 20, 16, 0};
  const Case fresh(dev, z, kind.type), added(dev, z, kind.type);
  fresh.run(dev);
  const Tensor before = random(dev, added.dq.shape, "before", kind.type);
  op::copy(dev, added.dq, before);
  added.forward(dev);
  added.backward(dev, Write::add);
  const Reference reference(fresh);
  auto want = values(before), plain = want;
  for (std::size_t i = 0; i < want.size(); ++i) want[i] += reference.d.dq[i], plain[i] += reference.plain_d.dq[i];
  check_close_to_plain("dq", added.dq, want, rounded_to_bf16(plain));
  CHECK(same_bits(fresh.dk, added.dk));
  CHECK(same_bits(fresh.dv, added.dv));
}

TEST_CASE("a NaN comes out where it must, and the future does not touch the past") {
  const Kind kind = GENERATE(from_range(all_kinds()));
  INFO(describe(kind));
  TestDevice dev(kind, 2);
  const AttentionSizes z{1, 200, 2, 1, 16, 16, 0};
  const Case clean(dev, z, kind.type), dirty(dev, z, kind.type);
  clean.run(dev);
  const double nan = std::numeric_limits<double>::quiet_NaN();
  SECTION("a NaN query reaches its own output and every key it sees") {
    set_at(dirty.q, (150 * 2 + 1) * 16 + 3, nan);
    dirty.run(dev);
    CHECK(std::isnan(values(dirty.o)[(150 * 2 + 1) * 16]));
    CHECK(std::isnan(values(dirty.lse)[150 * 2 + 1]));
    CHECK(std::isnan(values(dirty.dq)[(150 * 2 + 1) * 16]));
    CHECK(std::isnan(values(dirty.dk)[0]));
    CHECK(std::isnan(values(dirty.dv)[150 * 16]));
    CHECK(values(dirty.o)[150 * 2 * 16] == values(clean.o)[150 * 2 * 16]);
  }
  SECTION("a NaN key reaches every query from it on") {
    set_at(dirty.k, 150 * 16, nan);
    dirty.run(dev);
    const auto o = values(dirty.o), dq = values(dirty.dq);
    for (std::size_t t = 150; t < 200; ++t) CHECK(std::isnan(o[t * 2 * 16]));
    for (std::size_t t = 150; t < 200; ++t) CHECK(std::isnan(dq[t * 2 * 16]));
  }
  SECTION("another key changes no earlier query, to the bit") {
    edit(dirty.k, [](auto& k) { k[150 * 16] += 3; });
    edit(dirty.v, [](auto& v) { v[150 * 16] += 3; });
    dirty.forward(dev);
    CHECK(same_bits(clean.o.view({200, 32}).rows(0, 150), dirty.o.view({200, 32}).rows(0, 150)));
    CHECK(!same_bits(clean.o.view({200, 32}).rows(150, 151), dirty.o.view({200, 32}).rows(150, 151)));
  }
}

TEST_CASE("attention takes the bytes it plans, and its memory does not grow faster than T") {
  const DType type = GENERATE(DType::f32, DType::bf16);
  for (const AttentionSizes& z : {AttentionSizes{1, 130, 4, 2, 64, 64, 0}, AttentionSizes{2, 33, 4, 4, 20, 7, 5}}) {
    Device plan;
    plan.threads = 2;
    Case(plan, z, type).run(plan);
    CHECK(plan.planning());
    TestDevice dev(2, 64, 64);
    Case(dev, z, type).run(dev);
    CHECK(plan.work.peak() == dev.work.peak());
    CHECK(plan.work.peak() > 0);
    CHECK(dev.work.used() == 0);
  }
  const auto bytes = [&](std::int64_t T) {
    Device plan;
    plan.threads = 2;
    Case(plan, {1, T, 8, 2, 64, 64, 0}, type).run(plan);
    return plan.work.peak();
  };
  // a counter per key block; in bf16 also dk and dv in float, 2 heads of 64 each
  const std::size_t sums = type == DType::bf16 ? (1 << 20) * 2 * (64 + 64) * sizeof(float) : 0;
  CHECK(bytes(1 << 20) < bytes(1 << 10) + (1 << 20) * 2 + sums);
}
