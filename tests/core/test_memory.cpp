// Tensor views, arenas, random numbers, parallel pieces.
#include <cmath>
#include <set>

#include "catch.h"
#include "core/arena.h"
#include "core/parallel.h"
#include "core/rng.h"
#include "error_of.h"

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
  CHECK(plan.used() == 448);
  CHECK(plan.peak() == 448 + 128);
  run.reserve(plan.peak());
  for (int i = 0; i < 3; ++i) {
    ArenaScope scope(run);
    const Tensor t = step(run);
    CHECK(reinterpret_cast<std::uintptr_t>(t.data) % Arena::kAlign == 0);
    CHECK(t.f32()[99] == 0.0f);
  }
  CHECK(run.used() == 0);
  CHECK(run.peak() == plan.peak());
  CHECK(run.by_purpose_at_peak() == plan.by_purpose_at_peak());
  std::size_t sum = 0;
  for (std::size_t bytes : run.by_purpose_at_peak()) sum += bytes;
  CHECK(sum == run.peak());
  CHECK(run.by_purpose_at_peak()[static_cast<std::size_t>(Purpose::scratch)] == 128);
  CHECK(contains(error_of([&] { run.take(DType::f32, {1000}, Purpose::scratch); }), "planning and running disagree"));
  CHECK_THROWS_AS(run.reserve(1), Error);
  run.reset_peak();
  CHECK(run.peak() == 0);
}

TEST_CASE("arena: memory that is not there is one sentence") {
  Arena arena;
  CHECK(contains(error_of([&] { arena.reserve(std::size_t{1} << 60); }), "GiB asked, the system refused"));
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
