#include "branch_case.h"

using namespace nsa;
using namespace nsa::test;

namespace {

/// n blocks per (b, kv head, t): the current one and others at random, as NSA.md orders them. Not from scores, so that
/// indices are the same on both sides.
Tensor random_selected(Device& dev, const ref::NsaSizes& z, const std::string& name = "selected") {
  std::vector<std::int32_t> s;
  const Rng rng(3, name);
  std::uint64_t draw = 0;
  for (std::int64_t row = 0; row < z.B * z.Hkv * z.T; ++row) {
    const std::int64_t c = row % z.T / z.geometry.l_sel;
    std::vector<std::int32_t> chosen, all;
    for (std::int64_t j = 0; j < c; ++j) all.push_back(static_cast<std::int32_t>(j));
    chosen.push_back(static_cast<std::int32_t>(c));
    while (!all.empty() && static_cast<std::int64_t>(chosen.size()) < z.geometry.n) {
      const bool first = chosen.size() == 1 && z.geometry.init > 0;  // block 0 is in every list
      const std::size_t i = first ? 0 : static_cast<std::size_t>(rng.uniform(draw++) * static_cast<double>(all.size()));
      chosen.push_back(all[i]);
      all.erase(all.begin() + static_cast<std::ptrdiff_t>(i));
    }
    std::sort(chosen.begin(), chosen.end());
    chosen.resize(static_cast<std::size_t>(z.geometry.n), -1);
    s.insert(s.end(), chosen.begin(), chosen.end());
  }
  return to_tensor(dev, {z.B, z.Hkv, z.T, z.geometry.n}, s);
}

void check_case(const Kind& kind, const ref::NsaSizes& z, double scale = 1, double limit = tolerance(DType::f32)) {
  INFO(describe(kind) << ", " << describe(z));
  TestDevice dev(kind);
  const BranchInputs x(dev, z, z.T, kind.type, scale);
  const Tensor selected = random_selected(dev, z);
  const auto q = values(x.q), k = values(x.k), v = values(x.v);
  const auto blocks = ints(selected);
  const BranchReference want(x, [&](auto store) { return ref::attend_selected_forward(z, q, k, v, blocks, store); });
  const BranchForward y(dev, z, kind.type);
  op::attend_selected_forward(dev, y.o, y.lse, x.q, x.k, x.v, selected, z.geometry);
  want.check(y, limit);

  const Tensor delta = make_delta(dev, z, want.y.o, x.d_o);
  const BranchBackward d(dev, z, z.T, kind.type);
  op::attend_selected_backward(dev, d.dq, d.dk, d.dv, x.d_o, delta, y.lse, x.q, x.k, x.v, selected, z.geometry,
                               Write::overwrite);
  want.check(d, limit);

  const Tensor before = random(dev, d.dq.shape, "dq before", kind.type), dq = clone(dev, before);
  op::attend_selected_backward(dev, dq, d.dk, d.dv, x.d_o, delta, y.lse, x.q, x.k, x.v, selected, z.geometry,
                               Write::add);
  want.check_added(dq, before, limit);
}

}  // namespace

TEST_CASE("attend_selected equals the reference for given blocks, forward and backward") {
  const Kind kind = GENERATE(from_range(all_kinds()));
  for_each_case([&](const ref::NsaSizes& z) { check_case(kind, z); });
}

TEST_CASE("attend_selected with large logits") {
  const Kind kind = GENERATE(from_range(all_kinds()));
  check_case(kind, {.B = 1, .T = 129, .H = 4, .Hkv = 2, .Dk = 16, .Dv = 16, .geometry = small_nsa()}, 4.5,
             5e-5);  // a float lse of 80 is known to 4e-6
}

TEST_CASE("attend_selected sums over many blocks in float") {
  const Kind kind = GENERATE(from_range(all_kinds()));
  check_case(
      kind, {.B = 1, .T = 900, .H = 2, .Hkv = 1, .Dk = 8, .Dv = 8, .geometry = {.l = 4, .d = 2, .l_sel = 4, .n = 100}});
}

TEST_CASE("attend_selected with every block chosen is causal attention") {
  const ref::NsaSizes z{.B = 2,
                        .T = 150,
                        .H = 4,
                        .Hkv = 2,
                        .Dk = 16,
                        .Dv = 24,
                        .geometry = {.l = 8, .d = 4, .l_sel = 16, .n = 10}};  // n >= T / l'
  const Kind kind = GENERATE(from_range(all_kinds()));
  INFO(describe(kind));
  TestDevice dev(kind);
  const BranchInputs x(dev, z, z.T, kind.type);
  const Tensor kc = random(dev, {z.B, z.Tc(), z.Hkv, z.Dk}, "kc", kind.type),
               vc = random(dev, {z.B, z.Tc(), z.Hkv, z.Dv}, "vc", kind.type);
  const BranchForward cmp(dev, z, kind.type), got(dev, z, kind.type);
  const Tensor selected = make(dev, {z.B, z.Hkv, z.T, z.geometry.n}, DType::i32);
  op::attend_compressed_forward(dev, cmp.o, cmp.lse, x.q, kc, vc, z.geometry);
  op::select_blocks(dev, selected, x.q, kc, cmp.lse, z.geometry);
  op::attend_selected_forward(dev, got.o, got.lse, x.q, x.k, x.v, selected, z.geometry);
  const auto causal = [](auto, std::int64_t t, auto, std::int64_t s) { return s <= t; };
  const BranchReference want(
      x, [&](auto store) { return ref::attend_forward(z, z.T, values(x.q), values(x.k), values(x.v), causal, store); });
  want.check(got);
  const BranchBackward d(dev, z, z.T, kind.type);
  op::attend_selected_backward(dev, d.dq, d.dk, d.dv, x.d_o, make_delta(dev, z, want.y.o, x.d_o), got.lse, x.q, x.k,
                               x.v, selected, z.geometry, Write::overwrite);
  want.check(d);
}

TEST_CASE("attend_selected gives the same bits on any number of threads") {
  // One group, so that pieces which follow each other share queries or keys; several times, because a piece that does
  // not wait for another mostly comes later.
  const Kind kind = GENERATE(from_range(all_kinds()));
  INFO(describe(kind));
  const ref::NsaSizes z{.B = 1, .T = 600, .H = 3, .Hkv = 1, .Dk = 20, .Dv = 12, .geometry = small_nsa()};
  const auto run = [&](Device& dev, const BranchForward& y, const BranchBackward& d) {
    const BranchInputs x(dev, z, z.T, kind.type);
    const Tensor selected = random_selected(dev, z);
    op::attend_selected_forward(dev, y.o, y.lse, x.q, x.k, x.v, selected, z.geometry);
    op::attend_selected_backward(dev, d.dq, d.dk, d.dv, x.d_o, random(dev, {z.B, z.T, z.H}, "delta"), y.lse, x.q, x.k,
                                 x.v, selected, z.geometry, Write::overwrite);
  };
  TestDevice one(kind, 1);
  const BranchForward y1(one, z, kind.type);
  const BranchBackward d1(one, z, z.T, kind.type);
  run(one, y1, d1);
  for (int i = 0; i < 20; ++i) {
    TestDevice other(kind, 2 + i % 3);
    const BranchForward y(other, z, kind.type);
    const BranchBackward d(other, z, z.T, kind.type);
    run(other, y, d);
    CHECK((same_bits(y1.o, y.o) && same_bits(y1.lse, y.lse)));
    CHECK((same_bits(d1.dq, d.dq) && same_bits(d1.dk, d.dk) && same_bits(d1.dv, d.dv)));
  }
}

TEST_CASE("attend_selected takes the memory it plans") {
  const DType type = GENERATE(DType::f32, DType::bf16);
  for (std::int64_t T : {5, 300})
    check_plan([&](Device& dev) {
      const ref::NsaSizes z{.B = 2, .T = T, .H = 6, .Hkv = 2, .Dk = 20, .Dv = 12, .geometry = small_nsa()};
      const BranchBackward x(dev, z, T, type), d(dev, z, T, type);  // q, k, v and their gradients
      const BranchForward y(dev, z, type), dy(dev, z, type);        // o, lse and d_o, delta
      const Tensor selected = make(dev, {z.B, z.Hkv, T, z.geometry.n}, DType::i32);
      op::attend_selected_forward(dev, y.o, y.lse, x.dq, x.dk, x.dv, selected, z.geometry);
      op::attend_selected_backward(dev, d.dq, d.dk, d.dv, dy.o, dy.lse, y.lse, x.dq, x.dk, x.dv, selected, z.geometry,
                                   Write::overwrite);
    });
}
