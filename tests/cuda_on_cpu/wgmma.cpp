#include "cuda_on_cpu/wgmma.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <memory>
#include <vector>

#include "cuda/layout.cuh"
#include "cuda_on_cpu/machine.h"
#include "cuda_on_cpu/race.h"
#include "cuda_on_cpu/shared.h"

namespace cuda_on_cpu {

namespace {

constexpr std::uint32_t kK = 16, kRows = 16;  // of one warp, in one instruction
constexpr std::uint32_t kInFlight = ~0u;      // a NaN: what accumulators hold until they are waited for

/// An operand as its descriptor says: index along m or n, and k -> shared address.
struct Operand {
  std::uint32_t start, leading, stride, width, base;
  bool mn_major;

  Operand(std::uint64_t d, bool mn)
      : start(static_cast<std::uint32_t>(d & 0x3FFF) << 4),
        leading(static_cast<std::uint32_t>(d >> 16 & 0x3FFF) << 4),
        stride(static_cast<std::uint32_t>(d >> 32 & 0x3FFF) << 4),
        width(std::array{16u, 128u, 64u, 32u}[d >> 62]),
        base(static_cast<std::uint32_t>(d >> 49 & 7)),
        mn_major(mn) {}

  std::uint32_t plain(std::uint32_t i, std::uint32_t k) const {
    if (!mn_major && width == 16) return k / 8 * leading + i / 8 * stride + i % 8 * 16 + k % 8 * 2;
    if (!mn_major) return i / 8 * stride + i % 8 * width + k * 2;
    if (width == 16) return i / 8 * stride + k / 8 * leading + k % 8 * 16 + i % 8 * 2;
    const std::uint32_t panel = width / 2;
    return i / panel * leading + k / 8 * stride + k % 8 * width + i % panel * 2;
  }
  std::uint32_t address(std::uint32_t i, std::uint32_t k) const {
    const std::uint32_t at = start + plain(i, k);
    // swizzled(), and what an H100 makes of a base offset: the rows count from there.
    return at ^ (((at >> 7) - base) << 4 & (width - 16));
  }
};

struct Call {  // a lane's
  Product product;
  float* d;
  const std::uint32_t* a;
  std::uint64_t a_descriptor, b_descriptor;
  int accumulate;
  const Site* site;
};

/// A product of one warp: its 16 rows of the warpgroup's 64.
struct Work {
  Product product{};
  std::uint64_t a_descriptor = 0, b_descriptor = 0;
  int accumulate = 0;
  std::uint32_t warp = 0;
  Block* block = nullptr;
  std::array<float*, kWarp> d{};
  std::array<std::array<std::uint32_t, 4>, kWarp> a{};
  std::vector<float> before;  ///< accumulators when issued, by lane; empty: an earlier product in flight makes them
  Site site;

  std::uint32_t row(std::uint32_t m) const { return warp % 4 * kRows + m; }
  std::size_t per_lane() const { return static_cast<std::size_t>(product.n) / 2; }
};

float element(const unsigned char* shared, std::uint32_t address) {
  std::uint16_t bits;
  std::memcpy(&bits, shared + address % kSharedSpan, 2);
  return std::bit_cast<float>(std::uint32_t{bits} << 16);
}

void load_a(const Work& work, float (&a)[kRows][kK]) {
  const Operand in(work.a_descriptor, work.product.a_mn_major);
  for (std::uint32_t m = 0; m < kRows && !work.product.a_in_registers; ++m)
    for (std::uint32_t k = 0; k < kK; ++k) a[m][k] = element(work.block->shared, in.address(work.row(m), k));
  for (int lane = 0; lane < 32 && work.product.a_in_registers; ++lane)
    for (int r = 0; r < 4; ++r)
      for (int h = 0; h < 2; ++h)
        a[nsa::cuda::a_row(lane, r)][nsa::cuda::a_col(lane, r, h)] =
            std::bit_cast<float>(work.a[static_cast<std::size_t>(lane)][static_cast<std::size_t>(r)] >> 16 * h << 16);
}

void run(const Work& work) {
  const auto N = static_cast<std::uint32_t>(work.product.n);
  float a[kRows][kK];
  std::vector<float> b(kK * N), d(kRows * N);
  load_a(work, a);
  const Operand in(work.b_descriptor, work.product.b_mn_major);
  for (std::uint32_t k = 0; k < kK; ++k)
    for (std::uint32_t n = 0; n < N; ++n) b[k * N + n] = element(work.block->shared, in.address(n, k));
  const auto at = [N](int lane, std::size_t i) {
    return static_cast<std::uint32_t>(nsa::cuda::c_row(lane, static_cast<int>(i))) * N +
           static_cast<std::uint32_t>(nsa::cuda::c_col(lane, static_cast<int>(i)));
  };
  for (int lane = 0; lane < 32; ++lane)
    for (std::size_t i = 0; i < work.per_lane(); ++i) {
      const float* mine = work.d[static_cast<std::size_t>(lane)];
      if (!work.before.empty() && schedule().async != Async::early &&
          std::bit_cast<std::uint32_t>(mine[i]) != kInFlight)
        fault("wgmma at {}: lane {} wrote its accumulators before waiting for them", describe(work.site), lane);
      d[at(lane, i)] = !work.accumulate      ? 0.0f
                       : work.before.empty() ? mine[i]
                                             : work.before[static_cast<std::size_t>(lane) * work.per_lane() + i];
    }
  for (std::uint32_t m = 0; m < kRows; ++m)
    for (std::uint32_t k = 0; k < kK; ++k)
      for (std::uint32_t n = 0; n < N; ++n) d[m * N + n] += a[m][k] * b[k * N + n];
  for (int lane = 0; lane < 32; ++lane)
    for (std::size_t i = 0; i < work.per_lane(); ++i) work.d[static_cast<std::size_t>(lane)][i] = d[at(lane, i)];
  auto& in_flight = work.block->warps[work.warp].wgmma_in_flight;
  in_flight.erase(std::find(in_flight.begin(), in_flight.end(), work.d[0]));
}

/// 16-byte chunks that the product reads.
void enter_reads(const Work& work, const race::Actor& actor) {
  std::vector<std::uint32_t> chunks;
  const auto add = [&](const Operand& in, std::uint32_t first, std::uint32_t n) {
    for (std::uint32_t i = first; i < first + n; ++i)
      for (std::uint32_t k = 0; k < kK; ++k)
        if ((in.mn_major ? i : k) % 8 == 0) chunks.push_back(in.address(i, k) / 16);
  };
  if (!work.product.a_in_registers) add(Operand(work.a_descriptor, work.product.a_mn_major), work.row(0), kRows);
  add(Operand(work.b_descriptor, work.product.b_mn_major), 0, static_cast<std::uint32_t>(work.product.n));
  for (const std::uint32_t chunk : chunks) race::touch(actor, shared_pointer(chunk * 16), 16, race::Access::read);
}

std::uint32_t my_slot() { return race::slot(here(), race::Agent::wgmma, self().warp); }

std::shared_ptr<Work> gather(void* const* lanes) {
  const Call& first = *static_cast<Call*>(lanes[0]);
  auto work = std::make_shared<Work>();
  work->product = first.product;
  work->a_descriptor = first.a_descriptor, work->b_descriptor = first.b_descriptor;
  work->accumulate = first.accumulate, work->warp = self().warp, work->block = &here(), work->site = *first.site;
  for (std::uint32_t lane = 0; lane < kWarp; ++lane) {
    const Call& call = *static_cast<Call*>(lanes[lane]);
    if (call.a_descriptor != first.a_descriptor || call.b_descriptor != first.b_descriptor ||
        (call.accumulate != 0) != (first.accumulate != 0))
      fault("wgmma at {}: lanes 0 and {} have different descriptors or accumulate", describe(*first.site), lane);
    work->d[lane] = call.d;
    if (call.a) std::copy_n(call.a, 4, work->a[lane].begin());
  }
  return work;
}

void issue_product(void* const* lanes, std::uint32_t) {
  Warp& warp = my_warp();
  const std::shared_ptr<Work> work = gather(lanes);
  if (here().warps.size() < self().warp / 4 * 4 + 4)
    fault("wgmma at {}: warp {} belongs to no whole warpgroup", describe(work->site), self().warp);
  if (!warp.wgmma_fenced) fault("wgmma at {}: wgmma_fence is missing before it", describe(work->site));
  if (machine.checking) {
    Clock clock;
    for (std::uint32_t lane = 0; lane < kWarp; ++lane) clock.join(here().threads[self().warp * kWarp + lane].clock);
    enter_reads(*work, {&clock, my_slot(), warp.wgmma_groups + 1, true, race::site_number("wgmma", work->site)});
  }
  auto& in_flight = warp.wgmma_in_flight;
  if (std::find(in_flight.begin(), in_flight.end(), work->d[0]) == in_flight.end())
    for (float* d : work->d) {
      work->before.insert(work->before.end(), d, d + work->per_lane());
      if (schedule().async != Async::early) std::fill_n(d, work->per_lane(), std::bit_cast<float>(kInFlight));
    }
  in_flight.push_back(work->d[0]);
  issue({Operation::Kind::wgmma, &here(), self().warp, warp.wgmma_groups + 1, "wgmma", work->site,
         [work] { run(*work); }});
}

}  // namespace

void start_product(const Product& product, float* d, const std::uint32_t* a, std::uint64_t a_descriptor,
                   std::uint64_t b_descriptor, int accumulate, const Site& site) {
  Call mine{product, d, a, a_descriptor, b_descriptor, accumulate, &site};
  meet(~0u, "wgmma", true, &mine, issue_product, site);
}

void wait_for_products(std::uint32_t groups_left, const Site& site) {
  std::uint32_t left = groups_left;
  meet(
      ~0u, "wgmma_wait", true, &left,
      [](void* const* lanes, std::uint32_t) {
        Warp& warp = my_warp();
        warp.wgmma_fenced = false;
        const std::uint32_t keep = *static_cast<std::uint32_t*>(lanes[0]);
        if (warp.wgmma_groups <= keep) return;
        complete(Operation::Kind::wgmma, self().warp, warp.wgmma_groups - keep);
        if (!machine.checking) return;
        for (std::uint32_t lane = 0; lane < kWarp; ++lane)
          here().threads[self().warp * kWarp + lane].clock.set(my_slot(), warp.wgmma_groups - keep);
      },
      site);
}

namespace {

std::string explain_registers(const Thread& t) {
  return fmt::format("for {} registers a thread; its warp has {}, the block {} to give away", t.waits_on,
                     t.block->warps[t.warp].registers, t.block->registers_free);
}

}  // namespace

void set_registers(std::uint32_t n, bool increase, const Site& site) {
  const char* what = increase ? "registers_increase" : "registers_decrease";
  meet(
      ~0u, what, true, nullptr, [](void* const*, std::uint32_t) {}, site);
  Block& block = here();
  Warp& warp = my_warp();
  if (warp.registers == n) return;
  if (increase != (n > warp.registers)) fault("{} at {}: from {} to {}", what, describe(site), warp.registers, n);
  if (!increase) {
    block.registers_free += (warp.registers - n) * kWarp;
    warp.registers = n;
    wake_watchers(&block.registers_free);
    return;
  }
  while (warp.registers != n && block.registers_free < (n - warp.registers) * kWarp)
    watch(&block.registers_free, what, site, n, explain_registers);
  if (warp.registers == n) return;
  block.registers_free -= (n - warp.registers) * kWarp;
  warp.registers = n;
  wake_watchers(&block.registers_free);  // the other lanes of this warp
}

}  // namespace cuda_on_cpu

namespace nsa::cuda {

using namespace cuda_on_cpu;

void wgmma_fence(const Site& site) {
  meet(
      ~0u, "wgmma_fence", true, nullptr, [](void* const*, std::uint32_t) { my_warp().wgmma_fenced = true; }, site);
}

void wgmma_commit(const Site& site) {
  meet(
      ~0u, "wgmma_commit", true, nullptr, [](void* const*, std::uint32_t) { ++my_warp().wgmma_groups; }, site);
}

}  // namespace nsa::cuda
