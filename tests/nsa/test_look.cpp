// Looks against the reference, and where their values are known without one.
#include "error_of.h"
#include "ref/look.h"
#include "selection_case.h"

using namespace nsa;
using namespace nsa::test;

namespace {

struct LookCase : SelectionCase {
  LookCase(const Kind& kind, const ref::NsaSizes& sizes, int threads = 1) : SelectionCase(kind, sizes, threads, 1.5) {}
  /// {entropy, covered, chance}
  Tensor look(std::int64_t every) {
    const Tensor means = make(dev, {3});
    op::look_at_selection(dev, means, q, kc, lse, selected, z.geometry, every);
    CHECK(dev.work.used() == 0);
    return means;
  }
};

/// Several blocks to choose from: 4 of up to 25, 3 of them forced.
ref::NsaSizes with_a_choice() {
  return {.B = 1, .T = 400, .H = 4, .Hkv = 2, .Dk = 16, .Dv = 4, .geometry = small_nsa()};
}

}  // namespace

TEST_CASE("look_at_selection gives the reference's means", "[look]") {
  const Kind kind = GENERATE(from_range(all_kinds()));
  for_each_case([&](const ref::NsaSizes& z) {
    LookCase x(kind, z);
    const std::vector<double> p = x.run();
    for (std::int64_t every : {1, 17}) {
      INFO(describe(kind) << ", " << describe(z) << ", every " << every);
      const Tensor means = x.look(every);
      const std::vector<double> got = values(means), want = ref::look_at_selection(z, p, ints(x.selected), every);
      for (std::size_t k = 0; k < 3; ++k) CHECK(std::isnan(got[k]) == std::isnan(want[k]));
      check_close("means", means, want);
    }
  });
}

TEST_CASE("evenly spread attention: entropy 1, and the selection covers what chance would", "[look]") {
  const Kind kind = any_kind();
  INFO(describe(kind));
  LookCase x(kind, with_a_choice());
  edit(x.q, [](auto& q) { std::fill(q.begin(), q.end(), 0.0f); });
  x.run();
  const std::vector<double> got = values(x.look(1));
  CHECK(got[0] == Approx(1).epsilon(1e-6));
  CHECK(got[1] == Approx(got[2]).epsilon(1e-6));
  CHECK(got[1] > 0.15);
  CHECK(got[1] < 0.9);
}

TEST_CASE("all the attention on one block: entropy 0, all of it covered, and chance seldom finds it", "[look]") {
  const Kind kind = any_kind();
  INFO(describe(kind));
  LookCase x(kind, with_a_choice());
  const float a = std::sqrt(20.0f);  // logits of +-80
  edit(x.q, [&](auto& q) { std::fill(q.begin(), q.end(), a); });
  edit(x.kc, [&](auto& kc) {
    std::fill(kc.begin(), kc.end(), -a);
    std::fill_n(kc.begin() + 5 * x.z.Hkv * x.z.Dk, x.z.Hkv * x.z.Dk, a);  // tokens 20 .. 27, inside select block 1
  });
  x.run();
  const std::vector<double> got = values(x.look(x.z.T));  // the last query alone
  CHECK(std::fabs(got[0]) < 1e-5);                        // log2 p = 115 - 115, in floats
  CHECK(got[1] == Approx(1).epsilon(1e-6));
  CHECK(got[2] == Approx(1.0 / 22).epsilon(1e-5));  // 25 blocks, 3 of them forced, 1 of 22 drawn
}

TEST_CASE("indices shifted by one block cover less", "[look]") {
  const Kind kind = any_kind();
  INFO(describe(kind));
  LookCase x(kind, with_a_choice());
  x.run();
  const std::vector<double> right = values(x.look(1));
  CHECK(right[1] > right[2] + 0.02);
  std::vector<std::int32_t> selected = ints(x.selected);
  for (std::size_t i = 0; i < selected.size(); i += 4) {  // ascending: block 0, the free one, the two local ones
    std::int32_t& free = selected[i + 1];
    if (selected[i + 3] > 3) free = free + 1 < selected[i + 2] ? free + 1 : 1;
  }
  set(x.selected, selected);
  const std::vector<double> shifted = values(x.look(1));
  CHECK(shifted[1] < right[1] - 0.01);
  CHECK(shifted[2] == right[2]);
}

TEST_CASE("what no query can tell is NaN", "[look]") {
  const Kind kind = any_kind();
  INFO(describe(kind));
  const auto look = [&](std::int64_t T, const NsaShape& geometry) {
    LookCase x(kind, {.B = 1, .T = T, .H = 2, .Hkv = 1, .Dk = 8, .Dv = 4, .geometry = geometry});
    x.run();
    return values(x.look(17));
  };
  NsaShape all_forced = small_nsa();
  all_forced.n = 3;
  for (const auto& [T, geometry, spread, chooses] :
       {std::tuple(std::int64_t{11}, small_nsa(), false, false),  // one compressed block
        {12, small_nsa(), true, false},
        {64, small_nsa(), true, false},  // four blocks, all selected
        {65, small_nsa(), true, true},
        {400, all_forced, true, false}}) {
    INFO("T " << T << ", n " << geometry.n);
    const std::vector<double> got = look(T, geometry);
    CHECK(std::isfinite(got[0]) == spread);
    CHECK(std::isfinite(got[1]) == chooses);
    CHECK(std::isfinite(got[2]) == chooses);
  }
}

TEST_CASE("look_at_selection gives the same bits on any number of threads, and takes the memory it plans", "[look]") {
  const Kind kind = any_kind();
  INFO(describe(kind));
  const ref::NsaSizes z{.B = 2, .T = 333, .H = 6, .Hkv = 2, .Dk = 20, .Dv = 4, .geometry = small_nsa()};
  LookCase one(kind, z, 1), three(kind, z, 3);
  one.run();
  three.run();
  CHECK(same_bits(one.look(3), three.look(3)));
  check_plan([&](Device& dev) {
    const Tensor q = make(dev, {z.B, z.T, z.H, z.Dk}, kind.type), kc = make(dev, {z.B, z.Tc(), z.Hkv, z.Dk}, kind.type),
                 selected = make(dev, {z.B, z.Hkv, z.T, z.geometry.n}, DType::i32);
    if (selected.data) set(selected, std::vector<std::int32_t>(static_cast<std::size_t>(selected.numel()), 0));
    op::look_at_selection(dev, make(dev, {3}), q, kc, make(dev, {z.B, z.T, z.H}), selected, z.geometry, 17);
  });
}

TEST_CASE("look_at_outputs gives the mean squares of gate times output", "[look]") {
  struct Case {
    std::int64_t N, H, Dv;
  };
  const Kind kind = any_kind();
  for (const Case& s : {Case{1, 1, 1}, {3, 2, 5}, {33, 4, 64}, {9, 5, 130}, {513, 2, 16}, {2, 1, 20000}}) {
    INFO("N " << s.N << " H " << s.H << " Dv " << s.Dv << ", " << describe(kind));
    TestDevice dev(kind, 2);
    const Shape by_head{s.N, s.H, s.Dv};
    const Tensor gates = random(dev, {s.N, s.H, 3}, "gates"), means = make(dev, {3});
    const Tensor cmp = random(dev, by_head, "cmp", kind.type), slc = random(dev, by_head, "slc", 1e-3, 0, kind.type),
                 win = random(dev, by_head, "win", 30, 0, kind.type);
    op::look_at_outputs(dev, means, gates, cmp, slc, win);
    const auto want = ref::look_at_outputs(s.N * s.H, s.Dv, values(gates), {values(cmp), values(slc), values(win)});
    const auto got = values(means);
    for (std::size_t b = 0; b < 3; ++b) CHECK(got[b] == Approx(want[b]).epsilon(1e-5));  // each against its own size
    CHECK(dev.work.used() == 0);
  }
}

TEST_CASE("look fronts name what does not fit", "[look]") {
  TestDevice dev(1, 1);
  const ref::NsaSizes z = with_a_choice();
  LookCase x({}, z);
  x.run();
  CHECK(error_of([&] { x.look(0); }).rfind("look_at_selection: every=0 must be at least 1", 0) == 0);
  const Tensor o = make(dev, {3, 2, 4});
  CHECK(error_of([&] {
          op::look_at_outputs(dev, make(dev, {2}), make(dev, {3, 2, 3}), o, o, o);
        }).rfind("look_at_outputs: mean_squares is (2), expected (3) = (3); ", 0) == 0);
}
