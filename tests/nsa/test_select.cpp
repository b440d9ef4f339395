#include <set>

#include "selection_case.h"

using namespace nsa;
using namespace nsa::test;

namespace {

/// Same blocks as the reference, but for candidates whose scores float cannot separate (in bf16 too: scores are float);
/// ascending, -1 at the end.
void check_selected(const SelectionCase& x, const std::vector<double>& p) {
  const std::vector<double> score = ref::block_scores(x.z, p);
  const std::vector<std::int32_t> want = ref::select_blocks(x.z, score), got = ints(x.selected);
  const std::int64_t n = x.z.geometry.n, blocks = x.z.geometry.blocks(x.z.T);
  std::int64_t different = 0;
  for (std::size_t row = 0; row < want.size() / static_cast<std::size_t>(n); ++row) {
    const std::set<std::int32_t> w(want.begin() + row * n, want.begin() + (row + 1) * n),
        g(got.begin() + row * n, got.begin() + (row + 1) * n);
    for (std::int64_t i = 1; i < n; ++i) {
      const std::int32_t a = got[row * n + i - 1], b = got[row * n + i];
      REQUIRE(((a >= 0 && a < b) || b == -1));
    }
    if (w == g) continue;
    ++different;
    REQUIRE(w.size() == g.size());
    double lost = -1, gained = 1e30;  // best block left out, worst block taken instead
    for (std::int32_t j : w)
      if (!g.count(j)) lost = std::max(lost, score[row * blocks + j]);
    for (std::int32_t j : g)
      if (!w.count(j)) gained = std::min(gained, j < 0 ? -1.0 : score[row * blocks + j]);
    INFO("row " << row << " of (B,Hkv,T): lost score " << lost << ", gained " << gained);
    REQUIRE(lost - gained < 3e-6 * static_cast<double>(x.z.G()));
  }
  CHECK(different <= static_cast<std::int64_t>(want.size()) / n / 100);
}

}  // namespace

TEST_CASE("select_blocks chooses the reference's blocks") {
  const Kind kind = GENERATE(from_range(all_kinds()));
  for_each_case([&](const ref::NsaSizes& z) {
    INFO(describe(kind) << ", " << describe(z));
    SelectionCase x(kind, z);
    check_selected(x, x.run());
  });
}

TEST_CASE("select_blocks at the paper's block sizes") {
  const Kind kind = GENERATE(from_range(all_kinds()));
  INFO(describe(kind));
  SelectionCase x(kind, {.B = 1, .T = 1500, .H = 4, .Hkv = 2, .Dk = 16, .Dv = 1, .geometry = {.n = 6}});
  check_selected(x, x.run());
}

TEST_CASE("select_blocks: equal keys are ties, and the lower index wins") {
  const Kind kind = GENERATE(from_range(all_kinds()));
  INFO(describe(kind));
  for (std::int64_t init : {0, 1, 2}) {
    NsaShape geometry = small_nsa();
    geometry.init = init, geometry.n = 6;
    SelectionCase x(kind, {.B = 1, .T = 400, .H = 4, .Hkv = 2, .Dk = 16, .Dv = 4, .geometry = geometry});
    edit(x.kc, [&](auto& kc) {
      for (std::size_t i = 0; i < kc.size(); ++i) kc[i] = static_cast<float>(i % 16) * 0.1f - 0.7f;
    });
    const auto p = x.run();
    CHECK(ints(x.selected) == ref::select_blocks(x.z, ref::block_scores(x.z, p)));
  }
}

TEST_CASE("select_blocks with all the mass on one block") {
  const Kind kind = GENERATE(from_range(all_kinds()));
  INFO(describe(kind));
  const NsaShape geometry = small_nsa();
  SelectionCase x(kind, {.B = 1, .T = 400, .H = 2, .Hkv = 1, .Dk = 16, .Dv = 4, .geometry = geometry});
  const float a = std::sqrt(20.0f);  // logits of +-80
  const std::int64_t loved = 9;      // compressed blocks 37, 38 lie inside select block 9 and in no other
  edit(x.q, [&](auto& q) { std::fill(q.begin(), q.end(), a); });
  edit(x.kc, [&](auto& kc) {
    std::fill(kc.begin(), kc.end(), -a);
    std::fill_n(kc.begin() + (4 * loved + 1) * x.z.Dk, 2 * x.z.Dk, a);
  });
  x.run();
  const auto selected = ints(x.selected);
  for (std::int64_t t = (loved + 2) * geometry.l_sel; t < x.z.T; ++t) {
    const auto s = selected.begin() + t * geometry.n;
    const std::int32_t c = static_cast<std::int32_t>(t / geometry.l_sel);
    INFO("t " << t);
    CHECK(std::vector<std::int32_t>(s, s + geometry.n) ==
          std::vector<std::int32_t>{0, static_cast<std::int32_t>(loved), c - 1, c});
  }
}

TEST_CASE("select_blocks takes all blocks while they fit, and marks unused slots") {
  const Kind kind = GENERATE(from_range(all_kinds()));
  INFO(describe(kind));
  SelectionCase x(kind, {.B = 2, .T = 130, .H = 2, .Hkv = 2, .Dk = 4, .Dv = 4, .geometry = {.n = 16}});
  x.run();
  const auto selected = ints(x.selected);
  for (std::size_t i = 0; i < selected.size(); ++i) {
    const std::int32_t slot = static_cast<std::int32_t>(i % 16), t = static_cast<std::int32_t>(i / 16 % 130);
    CHECK(selected[i] == (slot <= t / 64 ? slot : -1));
  }
}

TEST_CASE("select_blocks gives valid blocks even when scores are NaN") {
  const Kind kind = GENERATE(from_range(all_kinds()));
  INFO(describe(kind));
  SelectionCase x(kind, {.B = 1, .T = 200, .H = 2, .Hkv = 1, .Dk = 8, .Dv = 4, .geometry = small_nsa()});
  set_at(x.kc, 5, std::numeric_limits<double>::quiet_NaN());
  x.run();
  const auto selected = ints(x.selected);
  for (std::int64_t t = 0; t < x.z.T; ++t)
    for (std::int64_t i = 0; i < std::min(x.z.geometry.n, t / 16 + 1); ++i) {
      const std::int32_t* s = selected.data() + t * x.z.geometry.n;
      CHECK((s[i] >= 0 && s[i] <= t / 16 && (i == 0 || s[i] > s[i - 1])));
    }
}

TEST_CASE("select_blocks gives the same blocks on any number of threads, and takes the memory it plans") {
  const Kind kind = GENERATE(from_range(all_kinds()));
  INFO(describe(kind));
  const ref::NsaSizes z{.B = 2, .T = 333, .H = 6, .Hkv = 2, .Dk = 20, .Dv = 4, .geometry = small_nsa()};
  SelectionCase one(kind, z, 1), three(kind, z, 3);
  one.run();
  three.run();
  CHECK(same_bits(one.selected, three.selected));
  check_plan([&](Device& dev) {
    const Tensor q = make(dev, {z.B, z.T, z.H, z.Dk}, kind.type), kc = make(dev, {z.B, z.Tc(), z.Hkv, z.Dk}, kind.type),
                 lse = make(dev, {z.B, z.T, z.H});
    op::select_blocks(dev, make(dev, {z.B, z.Hkv, z.T, z.geometry.n}, DType::i32), q, kc, lse, z.geometry);
  });
}
