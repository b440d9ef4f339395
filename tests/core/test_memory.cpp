// Tensor views, arenas, random numbers, parallel pieces.
#include <bit>
#include <cmath>
#include <limits>
#include <set>

#include "catch.h"
#include "core/arena.h"
#include "core/cgroup.h"
#include "core/device.h"
#include "core/file.h"
#include "core/parallel.h"
#include "core/rng.h"
#include "core/transfer.h"
#include "error_of.h"
#include "temp_dir.h"

using namespace nsa;

TEST_CASE("shape and tensor views") {
  const Shape shape{2, 3, 4};
  CHECK(shape.numel() == 24);
  CHECK(shape.str() == "(2, 3, 4)");
  CHECK(Shape{1 << 20, 1 << 20, 1 << 10}.numel() == std::int64_t{1} << 50);
  CHECK_THROWS_AS(Shape({1, 1, 1, 1, 1, 1}), Error);
  std::vector<float> data(24);
  const Tensor t{data.data(), DType::f32, shape};
  CHECK(t.bytes() == 96);
  CHECK(t.rows(1, 2).data == data.data() + 12);
  CHECK(t.rows(1, 2).shape == Shape{1, 3, 4});
  CHECK(t.rows(2, 2).numel() == 0);
  CHECK(t.view({24}).shape == Shape{24});
  CHECK_THROWS_AS(t.view({25}), Error);
  CHECK_THROWS_AS(t.rows(1, 3), Error);
  CHECK(contains(error_of([&] { t.i32(); }), "read as i32, stored as f32"));
  CHECK_FALSE(Tensor{});
  CHECK(Tensor{}.bytes() == 0);
  CHECK(Tensor{nullptr, DType::bf16, {3}}.bytes() == 6);
}

TEST_CASE("arena: a plan without memory gives the bytes a run takes") {
  Arena plan, run;
  const auto step = [](Arena& arena) {
    const Tensor kept = arena.take(DType::f32, {100}, Purpose::activations);
    {
      ArenaScope scope(arena);
      arena.take(DType::bf16, {33}, Purpose::scratch);
      arena.take(DType::f32, {0}, Purpose::scratch);
    }
    ArenaScope scope(arena);
    arena.take(DType::f32, {7}, Purpose::logits);
    return kept;
  };
  CHECK(plan.planning());
  CHECK(step(plan).data == nullptr);
  CHECK(plan.used() == 512);
  CHECK(plan.peak() == 512 + 256);
  run.reserve(plan.peak());
  for (int i = 0; i < 3; ++i) {
    ArenaScope scope(run);
    const Tensor t = step(run);
    CHECK(reinterpret_cast<std::uintptr_t>(t.data) % kAlign == 0);
    t.f32()[99] = 1;
  }
  CHECK(run.used() == 0);
  CHECK(run.peak() == plan.peak());
  CHECK(run.by_purpose_at_peak() == plan.by_purpose_at_peak());
  std::size_t sum = 0;
  for (std::size_t bytes : run.by_purpose_at_peak()) sum += bytes;
  CHECK(sum == run.peak());
  CHECK(run.by_purpose_at_peak()[static_cast<std::size_t>(Purpose::scratch)] == 256);
  CHECK(contains(error_of([&] { run.take(DType::f32, {1000}, Purpose::scratch); }), "planning and running disagree"));
  CHECK_THROWS_AS(run.reserve(1), Error);
  run.reset_peak();
  CHECK(run.peak() == 0);
}

TEST_CASE("arena: memory that is not there is one sentence") {
  Arena arena;
  CHECK(contains(error_of([&] { arena.reserve(std::size_t{1} << 60); }), "GiB are available"));
  Device dev;  // each half is there, both are not
  const std::size_t most = available_memory(Where::cpu) / 3 * 2;
  CHECK(contains(error_of([&] { dev.reserve(most, most); }), "GiB are needed"));
  CHECK(dev.planning());
}

TEST_CASE("bf16: rounded to nearest, ties to even, infinities and NaN stay what they are") {
  const auto bits = [](float x) { return bf16(x).bits; };
  CHECK(bits(1.0f) == 0x3f80);
  CHECK(bits(std::bit_cast<float>(0x3f808000u)) == 0x3f80);  // half way, down to even
  CHECK(bits(std::bit_cast<float>(0x3f818000u)) == 0x3f82);  // half way, up to even
  CHECK(bits(std::bit_cast<float>(0x3f808001u)) == 0x3f81);
  CHECK(bits(std::numeric_limits<float>::max()) == 0x7f80);  // beyond the largest: infinity
  CHECK(bits(-std::numeric_limits<float>::infinity()) == 0xff80);
  CHECK(std::isnan(static_cast<float>(bf16(std::bit_cast<float>(0x7f800001u)))));
  CHECK(std::isnan(static_cast<float>(bf16(std::bit_cast<float>(0xffffffffu)))));
  CHECK(static_cast<float>(bf16(-2.5f)) == -2.5f);
}

TEST_CASE("places: host code cannot read the fake device, transfer can") {
  Device dev;
  dev.where = Where::fake;
  dev.reserve(1 << 20, 1 << 20);
  const Tensor t = dev.params.take(DType::f32, {2, 3}, Purpose::weights);
  CHECK(t.where == Where::fake);
  CHECK(t.rows(1, 2).view({3, 1}).where == Where::fake);
  CHECK(error_of([&] { t.f32(); }) == "tensor: f32 of (2, 3) lives on the fake device: download it first");
  for (float x : downloaded<float>(t)) CHECK(std::isnan(x));  // no promise of zeros
  const std::vector<float> v{1, 2, 3, 4, 5, 6};
  upload(t, v.data());
  CHECK(downloaded<float>(t) == v);
  CHECK(downloaded<float>(t.rows(1, 2)) == std::vector<float>{4, 5, 6});
  CHECK(error_of([&] { downloaded<std::int32_t>(t); }) == "download: read as i32, stored as f32");
  // nor can code that goes around as(): no machine instruction follows such an address
  CHECK(reinterpret_cast<std::uintptr_t>(t.data) >> 47 != 0);
}

TEST_CASE("control groups: the tightest of nested quotas holds, as does the memory that is left") {
  const TempDir dir;
  const auto write = [&](const std::string& folder, const std::string& name, const std::string& text) {
    make_folders(dir.path() + folder);
    write_file_atomic(dir.path() + folder + "/" + name, text);
  };
  write("/a/b", "cpu.max", "max 100000\n");
  write("/a", "cpu.max", "150000 100000\n");
  write("", "cpu.max", "400000 100000\n");
  write("/a", "memory.max", "1000\n");
  write("/a", "memory.current", "700\n");
  write("/a", "memory.stat", "anon 400\ninactive_file 200\n");
  const auto folders = cgroup_folders("1:name=systemd:/x\n0::/a/b\n", dir.path());
  CHECK(folders == std::vector<std::string>{dir.path() + "/a/b", dir.path() + "/a", dir.path()});
  CHECK(cpu_quota(folders) == 1.5);
  CHECK(memory_left(folders) == 500);
  CHECK(cpu_quota({dir.path() + "/a/b"}) == 0);
  CHECK(memory_left({dir.path()}) == 0);
  CHECK(cgroup_folders("0::/\n", "/r") == std::vector<std::string>{"/r"});
}

TEST_CASE("rng: known values, any order, streams apart") {
  CHECK(mix64(0) == 0xe220a8397b1dcdafull);  // SplitMix64's first output for seed 0
  CHECK(stream_id("") == 0xcbf29ce484222325ull);
  CHECK(stream_id("a") == 0xaf63dc4c8601ec8cull);  // FNV-1a's published test vector
  const Rng a(1, "init"), b(1, "shuffle"), c(2, "init");
  CHECK(a.bits(7) == Rng(1, "init").bits(7));
  std::set<std::uint64_t> all;
  for (std::uint64_t i = 0; i < 1000; ++i) {
    for (const Rng& rng : {a, b, c}) all.insert(rng.bits(i));
  }
  CHECK(all.size() == 3000);
  double mean = 0, square = 0, uniform = 0, cross = 0;
  const int n = 100000;
  for (int i = 0; i < n; ++i) {
    const double x = a.normal(static_cast<std::uint64_t>(i)), u = a.uniform(static_cast<std::uint64_t>(i));
    mean += x / n, square += x * x / n, uniform += u / n, cross += x * a.normal(static_cast<std::uint64_t>(i) + 1) / n;
    if (!(u >= 0 && u < 1) || !std::isfinite(x)) FAIL("outside at " << i);
  }
  CHECK(std::fabs(mean) < 0.015);
  CHECK(std::fabs(square - 1) < 0.03);
  CHECK(std::fabs(uniform - 0.5) < 0.005);
  CHECK(std::fabs(cross) < 0.015);
}

TEST_CASE("parallel: every piece once, the same pieces for any number of threads") {
  for (int threads : {1, 2, 5}) {
    std::vector<int> seen(103, 0);
    std::vector<std::int64_t> begins(11, -1);
    parallel_ranges(threads, 103, 10, [&](std::int64_t begin, std::int64_t end, int thread) {
      begins[static_cast<std::size_t>(begin / 10)] = begin;
      for (std::int64_t i = begin; i < end; ++i) seen[static_cast<std::size_t>(i)] += 1 + 0 * thread;
    });
    CHECK(seen == std::vector<int>(103, 1));
    for (std::size_t i = 0; i < begins.size(); ++i) CHECK(begins[i] == static_cast<std::int64_t>(10 * i));
  }
  parallel_for(2, 0, [](std::int64_t, int) { FAIL("nothing to do"); });
}

TEST_CASE("parallel: a piece may wait for the one before it") {
  for (int threads : {1, 2, 5}) {
    std::int32_t turn = 0;
    std::vector<std::int64_t> order;  // no lock: the turns alone keep the pieces apart
    parallel_in_order(threads, 1000, [&](std::int64_t i, int) {
      wait_for(turn, static_cast<std::int32_t>(i));
      order.push_back(i);
      pass_turn(turn, static_cast<std::int32_t>(i) + 1);
    });
    REQUIRE(order.size() == 1000);
    for (std::size_t i = 0; i < order.size(); ++i) CHECK(order[i] == static_cast<std::int64_t>(i));
  }
  parallel_in_order(2, 0, [](std::int64_t, int) { FAIL("nothing to do"); });
}
