// Causal attention against ref/attention.h: sizes that are multiples of nothing, groups, windows, large logits, thread
// counts, NaN, planning.
#include "ops/ops.h"
#include "ref/attention.h"
#include "ref/compare.h"

using namespace nsa;
using namespace nsa::test;
using nsa::ref::AttentionSizes;

namespace {

// Random inputs; only dims while planning.
Tensor input(Device& dev, const Shape& dims, const std::string& name, double scale = 1) {
  return dev.params.planning() ? make(dev, dims) : random(dev, dims, name, scale);
}

// Inputs and results of one call, all in the device's params arena.
struct Case {
  AttentionSizes z;
  Tensor q, k, v, d_o, o, lse, delta, dq, dk, dv;

  Case(Device& dev, const AttentionSizes& sizes, double scale = 1)
      : z(sizes),
        q(input(dev, {z.B, z.T, z.H, z.Dk}, "q", scale)),
        k(input(dev, {z.B, z.T, z.Hkv, z.Dk}, "k")),
        v(input(dev, {z.B, z.T, z.Hkv, z.Dv}, "v")),
        d_o(input(dev, {z.B, z.T, z.H, z.Dv}, "d_o")),
        o(make(dev, d_o.shape)),
        lse(make(dev, {z.B, z.T, z.H})),
        delta(make(dev, lse.shape)),
        dq(make(dev, q.shape)),
        dk(make(dev, k.shape)),
        dv(make(dev, v.shape)) {}

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

void check_against_reference(const AttentionSizes& z, int threads, double scale = 1,
                             double limit = tolerance(DType::f32)) {
  TestDevice dev(threads, 64, 64);
  const Case c(dev, z, scale);
  c.run(dev);
  INFO(c.str());
  const auto q = values(c.q), k = values(c.k), v = values(c.v), d_o = values(c.d_o);
  const auto want = ref::attention_forward<double>(z, q, k, v);
  check_close("o", c.o, want.o, limit);
  check_close("lse", c.lse, want.lse, limit);
  const auto gradients = ref::attention_backward<double>(z, d_o, q, k, v);
  const bool one_key =
      z.T == 1 || z.window == 1;  // the softmax is constant then, dq and dk are 0 and the error is measured absolutely
  check_close("dq", c.dq, gradients.dq, one_key ? 1e-3 : limit);
  check_close("dk", c.dk, gradients.dk, one_key ? 1e-3 : limit);
  check_close("dv", c.dv, gradients.dv, limit);
}

}  // namespace

TEST_CASE("reference attention: backward is the gradient of forward") {
  for (const AttentionSizes& z : {AttentionSizes{2, 7, 4, 2, 3, 5, 0}, AttentionSizes{1, 9, 3, 1, 4, 2, 4}}) {
    TestDevice dev;
    const Case c(dev, z);
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
  const std::int64_t groups[] = {1, 2, 3, 4, 8}, widths[] = {8, 16, 24, 64, 80};
  std::int64_t i = 0;
  for (std::int64_t T : {1, 7, 31, 33, 64, 65, 96, 97, 130, 257})
    for (std::int64_t window : {std::int64_t{0}, std::int64_t{1}, std::int64_t{5}, std::int64_t{64}, T + 3}) {
      const std::int64_t G = groups[i % 5], Hkv = T > 200 ? 1 : 1 + i % 2, B = T > 100 ? 1 : 1 + i % 3 / 2;
      check_against_reference({B, T, G * Hkv, Hkv, widths[(i / 2) % 5], widths[(i / 3 + i) % 5], window},
                              1 + static_cast<int>(i % 2));
      i += 1 + (window == 0);  // so that windows and groups do not go in step
    }
}

TEST_CASE("attention equals the reference for wide heads and odd sizes") {
  check_against_reference({1, 100, 4, 2, 192, 128, 0}, 2);
  check_against_reference({1, 130, 2, 1, 128, 192, 50}, 1);
  check_against_reference({2, 50, 5, 5, 1, 3, 0}, 2);
  check_against_reference({1, 40, 130, 1, 7, 9, 0}, 2);     // one query's group is more than a tile
  check_against_reference({1, 300, 6, 2, 20, 36, 200}, 2);  // a window of several blocks
  check_against_reference({3, 257, 2, 1, 17, 1, 100}, 2);
}

TEST_CASE("attention with logits of +-80 and beyond") {
  check_against_reference({1, 130, 2, 1, 16, 16, 0}, 1, 30,
                          1e-4);  // logits are that large in float: their rounding alone is 80 * 2^-24
  TestDevice dev;
  const Case c(dev, {1, 200, 1, 1, 16, 16, 0});
  for (std::int64_t t = 0; t < 200; ++t)
    for (std::int64_t i = 0; i < 16; ++i)
      c.q.f32()[t * 16 + i] = 1,
                         c.k.f32()[t * 16 + i] = t == 3 ? 20.0f : -20.0f;  // q.k / 4 = +-80: all the mass on key 3
  c.run(dev);
  CHECK(c.o.f32()[5] == Approx(c.v.f32()[5]));  // a query whose only key has a logit of -80
  CHECK(c.lse.f32()[0] == Approx(-80.0f));
  for (std::int64_t t = 3; t < 200; ++t) {
    CHECK(c.o.f32()[t * 16 + 5] == Approx(c.v.f32()[3 * 16 + 5]));
    CHECK(c.lse.f32()[t] == Approx(80.0f));
    CHECK(c.dq.f32()[t * 16 + 5] == Approx(0).margin(1e-4));
  }
  std::fill_n(c.k.f32(), c.k.numel(),
              -100.0f);  // logits of -400: their exponential is 0 unless the maximum is taken off
  c.run(dev);
  CHECK(c.lse.f32()[0] == Approx(-400.0f));
  CHECK(c.o.f32()[5] == Approx(c.v.f32()[5]));
}

TEST_CASE("attention whose logits leap from one block of keys to the next") {
  // after the first block logits (base 2) rise by 10, which rescales what was summed, or by 200, beyond what 2^x holds;
  // for some queries only
  for (double leap : {10.0, 200.0, -200.0}) {
    TestDevice dev(1, 64, 64);
    const AttentionSizes z{1, 500, 1, 1, 16, 16, 0};
    const Case c(dev, z);
    for (std::int64_t t = 0; t < z.T; ++t) {
      c.q.f32()[t * 16] = t % 3 ? 1.0f : 0.0f;
      c.k.f32()[t * 16] = t < 96 ? 0.0f : static_cast<float>(leap * 0.6931 * 4);
    }
    c.forward(dev);
    const auto want = ref::attention_forward<double>(z, values(c.q), values(c.k), values(c.v));
    INFO("leap " << leap);
    check_close("o", c.o, want.o, 1e-4);  // logits of 140: their rounding alone is 140 * 2^-24
    check_close("lse", c.lse, want.lse);
  }
}

TEST_CASE("a window of T or more is full attention, to the bit") {
  TestDevice dev(2);
  for (std::int64_t T : {1, 50, 97, 210}) {
    const Case full(dev, {2, T, 4, 2, 24, 16, 0});
    full.run(dev);
    for (std::int64_t window : {T, T + 1, std::int64_t{1} << 40}) {
      const Case windowed(dev, {2, T, 4, 2, 24, 16, window});
      windowed.run(dev);
      CHECK(same_results(full, windowed));
    }
  }
}

TEST_CASE("a window of one returns the token's own value") {
  TestDevice dev;
  const Case c(dev, {1, 120, 2, 2, 16, 16, 1});
  c.run(dev);
  check_close("o", c.o, c.v, 1e-6);
  check_close("dv", c.dv, c.d_o, 1e-6);
}

TEST_CASE("attention gives the same bits for any number of threads, twice") {
  for (const AttentionSizes& z :
       {AttentionSizes{1, 700, 4, 1, 32, 24, 0}, {2, 400, 4, 4, 16, 16, 150}, {1, 1000, 1, 1, 64, 64, 0}}) {
    TestDevice dev(1);
    const Case one(dev, z);
    one.run(dev);
    for (int threads : {2, 3, 5, 2}) {
      dev.threads = threads;
      const Case many(dev, z);
      many.run(dev);
      INFO(one.str() << ", threads " << threads);
      CHECK(same_results(one, many));
    }
  }
}

TEST_CASE("attention backward adds to dq when asked and never to dk, dv") {
  TestDevice dev(2);
  const AttentionSizes z{2, 70, 6, 2, 20, 16, 0};
  const Case fresh(dev, z), added(dev, z);
  fresh.run(dev);
  const Tensor before = random(dev, added.dq.shape, "before");
  std::memcpy(added.dq.data, before.data, before.bytes());
  added.forward(dev);
  added.backward(dev, Write::add);
  auto want = values(fresh.dq);
  for (std::size_t i = 0; i < want.size(); ++i) want[i] += static_cast<double>(before.f32()[i]);
  check_close("dq", added.dq, want, 1e-6);
  CHECK(same_bits(fresh.dk, added.dk));
  CHECK(same_bits(fresh.dv, added.dv));
}

TEST_CASE("a NaN comes out where it must, and the future does not touch the past") {
  TestDevice dev(2);
  const AttentionSizes z{1, 200, 2, 1, 16, 16, 0};
  const Case clean(dev, z), dirty(dev, z);
  clean.run(dev);
  const float nan = std::numeric_limits<float>::quiet_NaN();
  SECTION("a NaN query reaches its own output and every key it sees") {
    dirty.q.f32()[(150 * 2 + 1) * 16 + 3] = nan;
    dirty.run(dev);
    CHECK(std::isnan(dirty.o.f32()[(150 * 2 + 1) * 16]));
    CHECK(std::isnan(dirty.lse.f32()[150 * 2 + 1]));
    CHECK(std::isnan(dirty.dq.f32()[(150 * 2 + 1) * 16]));
    CHECK(std::isnan(dirty.dk.f32()[0]));
    CHECK(std::isnan(dirty.dv.f32()[150 * 16]));
    CHECK(dirty.o.f32()[150 * 2 * 16] == clean.o.f32()[150 * 2 * 16]);
  }
  SECTION("a NaN key reaches every query from it on") {
    dirty.k.f32()[150 * 16] = nan;
    dirty.run(dev);
    for (std::int64_t t = 150; t < 200; ++t) CHECK(std::isnan(dirty.o.f32()[t * 2 * 16]));
    for (std::int64_t t = 150; t < 200; ++t) CHECK(std::isnan(dirty.dq.f32()[t * 2 * 16]));
  }
  SECTION("another key changes no earlier query, to the bit") {
    dirty.k.f32()[150 * 16] += 3;
    dirty.v.f32()[150 * 16] += 3;
    dirty.forward(dev);
    CHECK(same_bits(clean.o.view({200, 32}).rows(0, 150), dirty.o.view({200, 32}).rows(0, 150)));
    CHECK(!same_bits(clean.o.view({200, 32}).rows(150, 151), dirty.o.view({200, 32}).rows(150, 151)));
  }
}

TEST_CASE("attention takes the bytes it plans, and its memory does not grow faster than T") {
  for (const AttentionSizes& z : {AttentionSizes{1, 130, 4, 2, 64, 64, 0}, AttentionSizes{2, 33, 4, 4, 20, 7, 5}}) {
    Device plan;
    plan.threads = 2;
    Case(plan, z).run(plan);
    CHECK(plan.planning());
    TestDevice dev(2, 64, 64);
    Case(dev, z).run(dev);
    CHECK(plan.work.peak() == dev.work.peak());
    CHECK(plan.work.peak() > 0);
    CHECK(dev.work.used() == 0);
  }
  const auto bytes = [](std::int64_t T) {
    Device plan;
    plan.threads = 2;
    Case(plan, {1, T, 8, 2, 64, 64, 0}).run(plan);
    return plan.work.peak();
  };
  CHECK(bytes(1 << 20) < bytes(1 << 10) + (1 << 20) * 2);  // a counter per key block
}
