// Random inputs of one NSA branch, and what both sides compute from them: the kernel (float) and the reference
// (double).
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "nsa/ops.h"
#include "ref/compare.h"
#include "ref/nsa.h"

namespace nsa::test {

/// The small geometry of most tests: several select blocks and a real choice at a T the naive reference can do.
inline NsaShape small_nsa() { return {.l = 8, .d = 4, .l_sel = 16, .n = 4, .init = 1, .local = 2, .w = 24}; }

inline std::string describe(const ref::NsaSizes& z) {
  const NsaShape& s = z.geometry;
  return fmt::format("B {} T {} H {} Hkv {} Dk {} Dv {}, l {} d {} l' {} n {} init {} local {}", z.B, z.T, z.H, z.Hkv,
                     z.Dk, z.Dv, s.l, s.d, s.l_sel, s.n, s.init, s.local);
}

/// T x group sizes x head dims every branch must get right; `with(sizes)` runs one.
inline void for_each_case(const std::function<void(const ref::NsaSizes&)>& with) {
  for (std::int64_t T : {1, 7, 31, 32, 33, 47, 48, 129, 300})
    with({.B = 1, .T = T, .H = 2, .Hkv = 1, .Dk = 16, .Dv = 16, .geometry = small_nsa()});
  for (std::int64_t T : {1, 31, 32, 33, 129, 300})
    with({.B = 1, .T = T, .H = 4, .Hkv = 1, .Dk = 24, .Dv = 8, .geometry = {.n = 3}});
  for (std::int64_t G : {1, 2, 3, 4, 5, 8, 16, 32})
    with({.B = 2, .T = 70, .H = 2 * G, .Hkv = 2, .Dk = 12, .Dv = 20, .geometry = small_nsa()});
  with({.B = 1, .T = 100, .H = 128, .Hkv = 1, .Dk = 8, .Dv = 8, .geometry = small_nsa()});  // one query fills more than
                                                                                            // a tile
  with({.B = 2, .T = 90, .H = 6, .Hkv = 3, .Dk = 192, .Dv = 128, .geometry = small_nsa()});
  with({.B = 1, .T = 90, .H = 2, .Hkv = 1, .Dk = 33, .Dv = 160, .geometry = small_nsa()});
  with({.B = 1, .T = 61, .H = 2, .Hkv = 1, .Dk = 1, .Dv = 1, .geometry = {.l = 3, .d = 3, .l_sel = 6, .n = 3}});
  with({.B = 2,
        .T = 150,
        .H = 2,
        .Hkv = 2,
        .Dk = 16,
        .Dv = 16,
        .geometry = {.l = 12, .d = 2, .l_sel = 14, .n = 5, .init = 0, .local = 1}});
  with({.B = 1,
        .T = 700,
        .H = 1,
        .Hkv = 1,
        .Dk = 4,
        .Dv = 4,
        .geometry = {.l = 4, .d = 2, .l_sel = 4, .n = 9}});  // more blocks than segments
}

/// q and the keys of a branch, S = T or Tc of them, with an upstream gradient.
struct BranchInputs {
  ref::NsaSizes z;
  std::int64_t S;
  Tensor q, k, v, d_o;
  BranchInputs(Device& dev, const ref::NsaSizes& sizes, std::int64_t S_, DType type, double scale = 1)
      : z(sizes),
        S(S_),
        q(random(dev, {z.B, z.T, z.H, z.Dk}, "q", scale, 0, type)),
        k(random(dev, {z.B, S, z.Hkv, z.Dk}, "k", scale, 0, type)),
        v(random(dev, {z.B, S, z.Hkv, z.Dv}, "v", type)),
        d_o(random(dev, {z.B, z.T, z.H, z.Dv}, "d_o", type)) {}
};

struct BranchForward {
  Tensor o, lse;
  BranchForward(Device& dev, const ref::NsaSizes& z, DType type)
      : o(make(dev, {z.B, z.T, z.H, z.Dv}, type)), lse(make(dev, {z.B, z.T, z.H})) {}
};

struct BranchBackward {
  Tensor dq, dk, dv;
  BranchBackward(Device& dev, const ref::NsaSizes& z, std::int64_t S, DType type)
      : dq(make(dev, {z.B, z.T, z.H, z.Dk}, type)),
        dk(make(dev, {z.B, S, z.Hkv, z.Dk}, type)),
        dv(make(dev, {z.B, S, z.Hkv, z.Dv}, type)) {}
};

/// delta (B,T,H) = sum over Dv of o * d_o, from the reference's o
inline Tensor make_delta(Device& dev, const ref::NsaSizes& z, const std::vector<double>& o, In d_o) {
  const Tensor delta = make(dev, {z.B, z.T, z.H});
  const auto g = values(d_o);
  std::vector<double> sums(o.size() / static_cast<std::size_t>(z.Dv));
  for (std::size_t i = 0; i < o.size(); ++i) sums[i / static_cast<std::size_t>(z.Dv)] += o[i] * g[i];
  set(delta, sums);
  return delta;
}

inline Tensor to_tensor(Device& dev, const Shape& dims, const std::vector<std::int32_t>& x) {
  const Tensor t = make(dev, dims, DType::i32);
  set(t, x);
  return t;
}

/// What a branch must give, and what a plain bf16 program would: forward(store) -> ref::Attended.
struct BranchReference {
  ref::Attended<double> y, plain;
  ref::AttendGrads<double> d, plain_d;

  template <class Forward>
  BranchReference(const BranchInputs& x, const Forward& forward) : y(forward(Exact())), plain(forward(ToBf16())) {
    const auto q = values(x.q), k = values(x.k), v = values(x.v), d_o = values(x.d_o);
    d = ref::attend_backward(x.z, x.S, d_o, y.p, q, k, v);
    plain_d = ref::attend_backward(x.z, x.S, d_o, plain.p, q, k, v, ToBf16());
  }

  void check(const BranchForward& got, double limit = tolerance(DType::f32)) const {
    check_close_to_plain("o", got.o, y.o, rounded_to_bf16(plain.o), limit);
    check_close("lse", got.lse, y.lse, limit);
  }
  void check(const BranchBackward& got, double limit = tolerance(DType::f32)) const {
    check_close_to_plain("dq", got.dq, d.dq, rounded_to_bf16(plain_d.dq), limit);
    check_close_to_plain("dk", got.dk, d.dk, rounded_to_bf16(plain_d.dk), limit);
    check_close_to_plain("dv", got.dv, d.dv, rounded_to_bf16(plain_d.dv), limit);
  }
  /// dq of a backward with Write::add, onto `before`
  void check_added(In dq, In before, double limit = tolerance(DType::f32)) const {
    std::vector<double> want = values(before), rounded = want;
    for (std::size_t i = 0; i < want.size(); ++i) want[i] += d.dq[i], rounded[i] += plain_d.dq[i];
    check_close_to_plain("dq added", dq, want, rounded_to_bf16(rounded), limit);
  }
};

/// `run(dev)`, with tensors from make(), takes at its peak exactly what it takes while planning.
inline void check_plan(const std::function<void(Device&)>& run) {
  Device plan;
  plan.threads = 2;
  run(plan);
  TestDevice dev(2);
  run(dev);
  CHECK(plan.work.peak() > 0);
  CHECK(plan.work.peak() == dev.work.peak());
  CHECK(plan.work.used() == 0);
  CHECK(dev.work.used() == 0);
}

}  // namespace nsa::test
