// Every wrapper does what an H100 did: bit by bit where it says nothing else. On the emulated device this proves the
// emulator; on a GPU it proves the wrappers.
#include <cmath>
#include <limits>
#include <numeric>

#include "catch.h"
#include "cuda_on_cpu/fault.h"
#include "cuda_on_cpu/schedule.h"
#include "device_memory.h"
#include "golden_silicon.h"
#include "silicon.h"

using namespace nsa;
using namespace nsa::test;

namespace {

/// Index of the first element that differs; -1: none.
template <class T>
std::int64_t first_difference(const std::vector<T>& a, const std::vector<T>& b) {
  if (a.size() != b.size()) return static_cast<std::int64_t>(std::min(a.size(), b.size()));
  for (std::size_t i = 0; i < a.size(); ++i)
    if (std::memcmp(&a[i], &b[i], sizeof(T)) != 0) return static_cast<std::int64_t>(i);
  return -1;
}

/// The schedules that decide when asynchronous work happens.
void any_schedule() { cuda_on_cpu::schedule() = cuda_on_cpu::schedule_of(GENERATE(0u, 1u, 2u, 3u)); }

/// What is -0 or +0 depends on the order of a sum.
std::vector<float> plus_zero(std::vector<float> v) {
  for (float& x : v) x += 0.0f;
  return v;
}

}  // namespace

TEST_CASE("silicon: mma.sync") {
  any_schedule();
  for (const std::string& name : silicon().cases("mma_bf16.", "d")) {
    INFO(name);
    const DeviceArray<std::uint32_t> a(silicon().get<std::uint32_t>(name + ".a")),
        b(silicon().get<std::uint32_t>(name + ".b"));
    const DeviceArray<float> c(silicon().get<float>(name + ".c")), d(128);
    run_mma(a, b, c, d);
    const auto got = d.host(), want = silicon().get<float>(name + ".d");
    if (name.find("random_float") == std::string::npos) CHECK(first_difference(got, want) == -1);
    for (std::size_t i = 0; i < want.size(); ++i) CHECK(std::fabs(got[i] - want[i]) <= 1e-4 * (1 + std::fabs(want[i])));
  }
}

TEST_CASE("silicon: ldmatrix, stmatrix, movmatrix") {
  any_schedule();
  const bool transposed = GENERATE(false, true);
  const int matrices = GENERATE(1, 2, 4);
  const std::string name = "x" + std::to_string(matrices) + (transposed ? ".trans" : "");
  INFO(name);
  std::vector<std::uint16_t> memory(256);
  std::iota(memory.begin(), memory.end(), std::uint16_t{0});
  const auto n = static_cast<std::size_t>(32 * matrices);
  const DeviceArray<std::uint32_t> loaded(n);
  run_ldmatrix(matrices, transposed, DeviceArray<std::uint16_t>(memory), loaded);
  CHECK(first_difference(loaded.host(), silicon().get<std::uint32_t>("matrix_moves.ldmatrix." + name)) == -1);

  std::vector<std::uint32_t> registers(n);
  for (std::uint32_t lane = 0; lane < 32; ++lane)
    for (std::uint32_t i = 0; i < static_cast<std::uint32_t>(matrices); ++i)
      registers[lane * static_cast<std::uint32_t>(matrices) + i] = (i * 32 + lane) * 2 | ((i * 32 + lane) * 2 + 1)
                                                                                             << 16;
  const DeviceArray<std::uint16_t> stored(33 * 8);
  run_stmatrix(matrices, transposed, DeviceArray<std::uint32_t>(registers), stored);
  CHECK(first_difference(stored.host(), silicon().get<std::uint16_t>("matrix_moves.stmatrix." + name)) == -1);

  std::vector<std::uint32_t> in(32);
  for (std::uint32_t lane = 0; lane < 32; ++lane) in[lane] = 2 * lane | (2 * lane + 1) << 16;
  const DeviceArray<std::uint32_t> moved(32);
  run_movmatrix(DeviceArray<std::uint32_t>(in), moved);
  CHECK(first_difference(moved.host(), silicon().get<std::uint32_t>("matrix_moves.movmatrix.trans")) == -1);
}

TEST_CASE("silicon: shuffles and votes") {
  any_schedule();
  const auto widths = silicon().get<std::int32_t>("shuffles.widths"),
             deltas = silicon().get<std::int32_t>("shuffles.deltas");
  const auto want = silicon().get<std::uint32_t>("shuffles.out");
  const DeviceArray<std::uint32_t> out(want.size());
  run_shuffles(DeviceArray<std::int32_t>(widths), static_cast<int>(widths.size()), DeviceArray<std::int32_t>(deltas),
               static_cast<int>(deltas.size()), out);
  CHECK(first_difference(out.host(), want) == -1);

  auto votes = silicon().get<std::uint32_t>("votes.out");
  for (std::uint32_t& v : votes)
    if (v == 0xEEEEEEEEu) v = ~0u;  // what no lane wrote
  const DeviceArray<std::uint32_t> seen(votes.size());
  run_votes(seen);
  CHECK(first_difference(seen.host(), votes) == -1);
}

TEST_CASE("silicon: approximations and conversion to bf16") {
  const auto x = silicon().get<float>("math.x");
  const DeviceArray<float> y(4 * x.size());
  run_approximations(DeviceArray<float>(x), y, static_cast<int>(x.size()));
  const auto got = y.host();
  const char* names[] = {"ex2_ftz", "lg2_ftz", "rcp_ftz", "rsqrt_ftz"};
  for (std::size_t f = 0; f < 4; ++f) {
    const auto want = silicon().get<float>(std::string("math.") + names[f]);
    for (std::size_t i = 0; i < x.size(); ++i) {
      const float g = got[f * x.size() + i], w = want[i];
      INFO(names[f] << "(" << x[i] << "): " << g << ", an H100: " << w);
      if (!std::isfinite(w) || w == 0) {
        CHECK(std::memcmp(&g, &w, sizeof g) == 0);  // NaNs, infinities and zeros with their signs
      } else {
        CHECK(std::fabs(g - w) <= 4.8e-7 * std::fabs(w) + (f == 1 ? 2.4e-7 : 1.2e-38));
      }
    }
  }
  const auto edges = silicon().get<float>("cvt_bf16.x");
  const DeviceArray<std::uint32_t> packed(edges.size());
  run_pack(DeviceArray<float>(edges), packed, static_cast<int>(edges.size()));
  CHECK(first_difference(packed.host(), silicon().get<std::uint32_t>("cvt_bf16.bf16x2")) == -1);
}

TEST_CASE("silicon: cp.async") {
  any_schedule();
  for (const int bytes : {4, 8, 16}) {
    INFO(bytes << " bytes");
    const std::string name = "cp_async.bytes" + std::to_string(bytes);
    const auto want = silicon().get<std::uint8_t>(name + ".out");
    const DeviceArray<std::uint8_t> out(want.size());
    run_cp_async(bytes, DeviceArray<std::uint8_t>(silicon().get<std::uint8_t>(name + ".in")), out);
    CHECK(first_difference(out.host(), want) == -1);
  }
  std::vector<std::uint8_t> in(512), want(512);
  std::iota(in.begin(), in.end(), std::uint8_t{0});
  for (std::size_t i = 0; i < 512; ++i) want[i] = in[(31 - i / 16) * 16 + i % 16];
  const DeviceArray<std::uint8_t> out(512);
  run_cp_async_arrive(DeviceArray<std::uint8_t>(in), out);
  CHECK(first_difference(out.host(), want) == -1);
}

TEST_CASE("silicon: bulk copies") {
  any_schedule();
  std::vector<float> sums(64), terms(64);
  for (std::size_t i = 0; i < 64; ++i) sums[i] = static_cast<float>(i), terms[i] = static_cast<float>(1000 * i);
  const DeviceArray<std::uint32_t> in(silicon().get<std::uint32_t>("bulk.in")), out(512);
  const DeviceArray<float> added(sums);
  run_bulk(in, out, added, DeviceArray<float>(terms));
  CHECK(first_difference(out.host(), silicon().get<std::uint32_t>("bulk.out")) == -1);
  CHECK(first_difference(added.host(), silicon().get<float>("bulk.reduce_f32")) == -1);
}

TEST_CASE("silicon: mbarrier phases") {
  for (const std::string& name : silicon().cases("mbarrier.", "steps")) {
    INFO(name);
    const auto steps = silicon().get<std::int32_t>(name + ".steps");
    const auto recorded =
        silicon().get<std::uint32_t>(name + ".test_try_parity");  // test_wait and try_wait, both parities
    std::vector<std::uint32_t> want;
    for (std::size_t i = 0; i < recorded.size(); i += 4) want.insert(want.end(), {recorded[i + 2], recorded[i + 3]});
    const DeviceArray<std::uint32_t> seen(want.size());
    run_mbarrier(DeviceArray<std::int32_t>(steps), static_cast<int>(steps.size() / 2), seen);
    CHECK(first_difference(seen.host(), want) == -1);
  }
}

TEST_CASE("silicon: wgmma") {
  any_schedule();
  for (const std::string& name : silicon().cases("wgmma_", "desc")) {
    INFO(name);
    // docs/golden.md has the order of these numbers.
    const auto v = silicon().get<std::int32_t>(name + ".desc");
    const auto u = [&](std::size_t i) { return static_cast<std::uint32_t>(v[i]); };
    WgmmaCase p{};
    p.n = v[0], p.a_mn_major = v[2] != 0, p.b_mn_major = v[3] != 0, p.a_in_registers = v[15] != 0;
    p.accumulate = v[12], p.steps = v[17];
    p.a_layout = cuda::matrix_descriptor(u(10), {u(6), u(7)}, u(4)) | static_cast<std::uint64_t>(v[11]) << 49;
    p.b_layout = cuda::matrix_descriptor(0, {u(8), u(9)}, u(5));
    for (std::size_t s = 0; s < static_cast<std::size_t>(p.steps); ++s) {
      p.a_offset[s] = u(18 + s);
      p.b_offset[s] = u(18 + static_cast<std::size_t>(p.steps) + s);
    }
    const auto a = silicon().get<std::uint32_t>(name + (p.a_in_registers ? ".a_regs" : ".a_smem")),
               b = silicon().get<std::uint32_t>(name + ".b_smem");
    p.a_bytes = p.a_in_registers ? 0 : static_cast<std::uint32_t>(a.size() * 4);
    p.b_bytes = static_cast<std::uint32_t>(b.size() * 4);
    const auto want = silicon().get<float>(name + ".d");
    std::vector<float> c(want.size());
    for (std::size_t i = 0; i < c.size(); ++i) c[i] = static_cast<float>(static_cast<int>(i * 37 % 2001) - 1000);
    if (p.accumulate) c = silicon().get<float>(name + ".c");
    const DeviceArray<float> d(want.size());
    run_wgmma(p, DeviceArray<std::uint32_t>(a), DeviceArray<std::uint32_t>(b), DeviceArray<float>(c), d);
    const auto got = d.host();
    if (name.find("random_float") == std::string::npos) {
      CHECK(first_difference(plus_zero(got), plus_zero(want)) == -1);
    } else {
      for (std::size_t i = 0; i < want.size(); ++i)
        CHECK(std::fabs(got[i] - want[i]) <= 1e-4 * (1 + std::fabs(want[i])));
    }
  }
}
