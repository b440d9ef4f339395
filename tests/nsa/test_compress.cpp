// Compression against the reference: all compressors, ragged lengths, overlapping and non-overlapping blocks, any
// number of threads, planned bytes.
#include "nsa/ops.h"
#include "error_of.h"
#include "ref/compare.h"
#include "ref/nsa.h"

using namespace nsa;
using namespace nsa::test;

namespace {

struct Call {
  Tensor x, c, hidden, dc, dx;
  CompressWeights w, dw;
};

const char* const kWeightNames[] = {"pos", "w1", "b1", "w2", "b2"};
const Tensor* members(const CompressWeights& w, int i) {
  return std::array{&w.pos, &w.w1, &w.b1, &w.w2, &w.b2}[static_cast<std::size_t>(i)];
}

CompressWeights weights_for(Device& dev, const ref::CompressSizes& s, const std::string& name, DType type) {
  const auto tensor = [&](const Shape& dims, const char* part, double scale) {
    return random(dev, dims, name + part, scale, 0, type);
  };
  CompressWeights w;
  if (s.kind == Compressor::mean) return w;
  const std::int64_t l = s.geometry.l;
  w.pos = tensor({s.Hkv, l, s.D}, "pos", 0.5);
  w.w1 = tensor({s.Hkv, s.E, l * s.D}, "w1", 1.5 / std::sqrt(static_cast<double>(l * s.D)));
  if (s.kind == Compressor::linear) return w;
  w.b1 = tensor({s.Hkv, s.E}, "b1", 0.5);
  w.w2 = tensor({s.Hkv, s.D, s.E}, "w2", 1 / std::sqrt(static_cast<double>(s.E)));
  w.b2 = tensor({s.Hkv, s.D}, "b2", 0.5);
  return w;
}

Call call_for(Device& dev, const ref::CompressSizes& s, DType type = DType::f32) {
  const std::int64_t Tc = s.geometry.Tc(s.T);
  Call a;
  a.x = random(dev, {s.B, s.T, s.Hkv, s.D}, "x", type);
  a.dc = random(dev, {s.B, Tc, s.Hkv, s.D}, "dc", type);
  a.c = make(dev, a.dc.shape, type);
  a.dx = make(dev, a.x.shape, type);
  if (s.kind == Compressor::mlp) a.hidden = make(dev, {s.B, Tc, s.Hkv, s.E}, type);
  a.w = weights_for(dev, s, "w.", type);
  a.dw = weights_for(dev, s, "dw.", DType::f32);  // backward adds: what was there must still be in it
  return a;
}

void run(Device& dev, const Call& a, const ref::CompressSizes& s) {
  op::compress_forward(dev, a.c, a.hidden, a.x, a.w, s.kind, s.geometry);
  op::compress_backward(dev, a.dx, a.dw, a.dc, a.hidden, a.x, a.w, s.kind, s.geometry);
}

ref::CompressParams<double> params_of(const CompressWeights& w) {
  return {values(w.pos), values(w.w1), values(w.b1), values(w.w2), values(w.b2)};
}

/// c, hidden, dx, then the gradients of the weights added to what was there; `store` is what a program does to a number
/// that it puts into a tensor.
template <class Store>
std::vector<std::vector<double>> evaluate(const Call& a, const ref::CompressSizes& s, Store store) {
  const auto x = values(a.x), dc = values(a.dc);
  const auto w = params_of(a.w), before = params_of(a.dw);
  const auto forward = ref::compress_forward(s, x, w, store);
  const auto back = ref::compress_backward(s, dc, forward.hidden, x, w, store);
  std::vector<std::vector<double>> results{forward.c, forward.hidden, back.dx,   before.pos,
                                           before.w1, before.b1,      before.w2, before.b2};
  const std::array grads{&back.w.pos, &back.w.w1, &back.w.b1, &back.w.w2, &back.w.b2};
  for (std::size_t i = 0; i < grads.size(); ++i)
    for (std::size_t k = 0; k < grads[i]->size(); ++k) results[3 + i][k] += (*grads[i])[k];
  return results;
}

void check_compress(const ref::CompressSizes& s, const Kind& kind) {
  INFO("kind " << static_cast<int>(s.kind) << " B " << s.B << " T " << s.T << " Hkv " << s.Hkv << " D " << s.D << " E "
               << s.E << ", " << describe(kind));
  INFO("l " << s.geometry.l << " d " << s.geometry.d);
  TestDevice dev(kind);
  const Call a = call_for(dev, s, kind.type);
  const auto want = evaluate(a, s, Exact());
  const auto plain = kind.type == DType::bf16 ? evaluate(a, s, ToBf16()) : want;
  run(dev, a, s);
  // the f32 results of bf16 numbers are held to the plain program too
  const auto check = [&](const std::string& name, In got, std::size_t i) {
    if (got) check_close(name, got, want[i], std::max(tolerance(DType::f32), 2 * difference(plain[i], want[i]).error));
  };
  check("c", a.c, 0);
  check("hidden", a.hidden, 1);
  check("dx", a.dx, 2);
  for (int i = 0; i < 5; ++i)
    check(std::string("d_") + kWeightNames[i], *members(a.dw, i), 3 + static_cast<std::size_t>(i));
}

constexpr Compressor kKinds[] = {Compressor::mlp, Compressor::linear, Compressor::mean};

ref::CompressSizes sizes(Compressor kind, std::int64_t B, std::int64_t T, std::int64_t Hkv, std::int64_t D,
                         std::int64_t E, std::int64_t l, std::int64_t d) {
  ref::CompressSizes s{kind, B, T, Hkv, D, kind == Compressor::mlp ? E : D, {}};
  s.geometry.l = l;
  s.geometry.d = d;
  s.geometry.l_sel = 2 * l;
  return s;
}

}  // namespace

TEST_CASE("compression matches the reference, forward and backward", "[compress]") {
  const std::int64_t geometries[][2] = {{32, 16}, {16, 16}, {8, 4}, {12, 4}, {1, 1}};
  for (const Kind& kind : all_kinds())
    for (Compressor compressor : kKinds)
      for (const auto& [l, d] : geometries)
        for (std::int64_t T : {1, 7, 31, 32, 33, 47, 48, 129})
          check_compress(sizes(compressor, 2, T, 2, 8, 12, l, d), kind);
}

TEST_CASE("compression with other head counts and sizes", "[compress]") {
  for (const Kind& kind : all_kinds())
    for (Compressor compressor : kKinds) {
      check_compress(sizes(compressor, 1, 70, 1, 24, 10, 8, 4), kind);
      check_compress(sizes(compressor, 3, 65, 3, 13, 7, 12, 4), kind);
      check_compress(sizes(compressor, 2, 100, 2, 16, 70, 16, 4), kind);
      check_compress(sizes(compressor, 1, 20, 3, 100, 7, 12, 4), kind);
    }
}

TEST_CASE("no complete block: no rows, and x gets gradient 0", "[compress]") {
  for (const Kind& kind : all_kinds())
    for (Compressor compressor : kKinds) {
      const auto s = sizes(compressor, 2, 31, 2, 8, 12, 32, 16);
      TestDevice dev(kind);
      const Call a = call_for(dev, s, kind.type);
      const Tensor before = a.dw.w1 ? clone(dev, a.dw.w1) : Tensor{};
      run(dev, a, s);
      check_close("dx", a.dx, std::vector<double>(static_cast<std::size_t>(a.dx.numel()), 0.0), 0);
      if (a.dw.w1) CHECK(same_bits(a.dw.w1, before));
    }
}

TEST_CASE("compression: the same bits for any number of threads", "[compress]") {
  for (const Kind& kind : all_kinds())
    for (Compressor compressor : kKinds) {
      const auto s = sizes(compressor, 2, 700, 2, 24, 40, 16, 4);
      TestDevice one(kind, 1), two(kind, 2), three(kind, 3);
      const Call a = call_for(one, s, kind.type);
      run(one, a, s);
      for (TestDevice* dev : {&two, &three}) {
        const Call b = call_for(*dev, s, kind.type);
        run(*dev, b, s);
        CHECK(same_bits(a.c, b.c));
        CHECK(same_bits(a.dx, b.dx));
        for (int i = 0; i < 5; ++i)
          if (*members(a.dw, i)) CHECK(same_bits(*members(a.dw, i), *members(b.dw, i)));
      }
    }
}

TEST_CASE("compression: planned bytes are the bytes used, and all are given back", "[compress]") {
  for (const Kind& kind : all_kinds())
    for (Compressor compressor : kKinds)
      for (std::int64_t T : {7, 129}) {
        const auto s = sizes(compressor, 2, T, 3, 8, 12, 8, 4);
        Device plan;
        run(plan, call_for(plan, s, kind.type), s);
        TestDevice dev(kind);
        run(dev, call_for(dev, s, kind.type), s);
        CHECK(plan.work.peak() == dev.work.peak());
        CHECK(plan.work.used() == 0);
        CHECK(dev.work.used() == 0);
      }
}

TEST_CASE("compression fronts name what does not fit", "[compress]") {
  TestDevice dev(1, 64, 64);
  auto s = sizes(Compressor::mlp, 2, 40, 2, 8, 12, 8, 4);
  const Call a = call_for(dev, s);
  const auto forward = [&](const CompressWeights& w, In c, const NsaShape& geometry) {
    op::compress_forward(dev, c, a.hidden, a.x, w, s.kind, geometry);
  };
  CHECK(error_of([&] {
          forward(a.w, a.x, s.geometry);
        }).rfind("compress_forward: c is (2, 40, 2, 8), expected (B,Tc,Hkv,D) = (2, 9, 2, 8); ", 0) == 0);
  CompressWeights w = a.w;
  w.b1 = a.w.b2;
  CHECK(error_of([&] {
          forward(w, a.c, s.geometry);
        }).rfind("compress_forward: b1 is (2, 8), expected (Hkv,E) = (2, 12); ", 0) == 0);
  w.b1 = Tensor{};
  CHECK_THROWS_WITH(forward(w, a.c, s.geometry),
                    "compress_forward: b1, w2 and b2 belong to the mlp compressor, and to no other");
  NsaShape odd = s.geometry;
  odd.d = 3;
  CHECK_THROWS_WITH(forward(a.w, a.c, odd), "compress_forward: compress_stride d=3 must divide compress_block l=8");
  odd = s.geometry;
  odd.l_sel = 4;
  CHECK_THROWS_WITH(
      forward(a.w, a.c, odd),
      "compress_forward: compress_block l=8 must not be larger than select_block l'=4 (were they swapped?)");
  odd = s.geometry;
  odd.n = 2;
  CHECK_THROWS_WITH(forward(a.w, a.c, odd),
                    "compress_forward: select_count n=2 must hold the forced blocks select_init=1 + select_local=2");
}
