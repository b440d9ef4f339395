#include "core/peak.h"

#include <algorithm>
#include <chrono>
#include <memory>
#include <numeric>
#include <vector>

#include "core/parallel.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/peak.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace nsa {
namespace HWY_NAMESPACE {
namespace {
namespace hn = hwy::HWY_NAMESPACE;

// `rounds` times 12 independent multiply-adds of a whole vector: enough chains to hide their latency (4-5 cycles, 2
// units), few enough for 16 registers. Every chain starts from another number, or the compiler sees 12 times the same
// chain and computes one. Returns the FLOPs done; *sink keeps the result alive.
double fma_rounds(std::int64_t rounds, float x, float* sink) {
  const hn::ScalableTag<float> d;
  const auto a = hn::Set(d, x), b = hn::Set(d, 1.0f - x);  // x < 1: the numbers stay near 1
  auto c0 = hn::Set(d, 0.1f * x), c1 = hn::Set(d, 0.2f * x), c2 = hn::Set(d, 0.3f * x), c3 = hn::Set(d, 0.4f * x);
  auto c4 = hn::Set(d, 0.5f * x), c5 = hn::Set(d, 0.6f * x), c6 = hn::Set(d, 0.7f * x), c7 = hn::Set(d, 0.8f * x);
  auto c8 = hn::Set(d, 0.9f * x), c9 = hn::Set(d, 1.1f * x), c10 = hn::Set(d, 1.2f * x), c11 = hn::Set(d, 1.3f * x);
  for (std::int64_t i = 0; i < rounds; ++i) {
    c0 = hn::MulAdd(c0, a, b), c1 = hn::MulAdd(c1, a, b), c2 = hn::MulAdd(c2, a, b), c3 = hn::MulAdd(c3, a, b);
    c4 = hn::MulAdd(c4, a, b), c5 = hn::MulAdd(c5, a, b), c6 = hn::MulAdd(c6, a, b), c7 = hn::MulAdd(c7, a, b);
    c8 = hn::MulAdd(c8, a, b), c9 = hn::MulAdd(c9, a, b), c10 = hn::MulAdd(c10, a, b), c11 = hn::MulAdd(c11, a, b);
  }
  const auto low = hn::Add(hn::Add(hn::Add(c0, c1), hn::Add(c2, c3)), hn::Add(c4, c5));
  const auto high = hn::Add(hn::Add(hn::Add(c6, c7), hn::Add(c8, c9)), hn::Add(c10, c11));
  *sink = hn::GetLane(hn::SumOfLanes(d, hn::Add(low, high)));
  return 24.0 * static_cast<double>(rounds) * static_cast<double>(hn::Lanes(d));
}

void triad_piece(float* a, const float* b, const float* c, std::int64_t n) {
  const hn::ScalableTag<float> d;
  const std::int64_t lanes = static_cast<std::int64_t>(hn::Lanes(d));
  const auto s = hn::Set(d, 3.0f);
  for (std::int64_t i = 0; i + lanes <= n; i += lanes)
    hn::StoreU(hn::MulAdd(hn::LoadU(d, c + i), s, hn::LoadU(d, b + i)), d, a + i);
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace nsa
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace nsa {
HWY_EXPORT(fma_rounds);
HWY_EXPORT(triad_piece);

namespace {

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

}  // namespace

// Each thread's best short run, added up: a run that a neighbour interrupts does not count, and all threads run at
// once, so the clock is that of a machine under load.
double measure_fma_gflops(int threads) {
  constexpr std::int64_t kRounds = 100000;  // a fraction of a millisecond
  std::vector<double> best(static_cast<std::size_t>(threads), 0.0);
  const double end = now() + 0.05;
  parallel_for(threads, threads, [&](std::int64_t i, int) {
    double fastest = 0;
    do {
      float sink = 0;
      const double start = now();
      const double flops = HWY_DYNAMIC_DISPATCH(fma_rounds)(kRounds, 0.999f, &sink);
      const double seconds = now() - start;
      if (sink > 0)
        fastest = std::max(fastest, flops / seconds * 1e-9);  // reading sink keeps the work from being dropped
    } while (now() < end);
    best[static_cast<std::size_t>(i)] = fastest;
  });
  return std::accumulate(best.begin(), best.end(), 0.0);
}

double measure_gbytes_s(int threads) {
  constexpr std::int64_t kLength = std::int64_t{8} << 20, kGrain = 1 << 16;  // 3 arrays of 32 MiB
  const std::unique_ptr<float[]> memory(new float[3 * kLength]);
  float *a = memory.get(), *b = a + kLength, *c = b + kLength;
  parallel_ranges(threads, 3 * kLength, kGrain,
                  [&](std::int64_t begin, std::int64_t end, int) { std::fill(a + begin, a + end, 1.0f); });
  double best = 0;
  for (int run = 0; run < 4; ++run) {
    const double start = now();
    parallel_ranges(threads, kLength, kGrain, [&](std::int64_t begin, std::int64_t end, int) {
      HWY_DYNAMIC_DISPATCH(triad_piece)(a + begin, b + begin, c + begin, end - begin);
    });
    best = std::max(best, 3.0 * sizeof(float) * static_cast<double>(kLength) / (now() - start) * 1e-9);
  }
  return best;
}

Peak measure_peak(int threads) { return {threads, measure_fma_gflops(threads), measure_gbytes_s(threads)}; }

}  // namespace nsa
#endif
