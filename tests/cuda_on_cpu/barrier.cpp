#include "cuda_on_cpu/barrier.h"

#include <cstring>

#include "cuda_on_cpu/machine.h"
#include "cuda_on_cpu/race.h"

namespace cuda_on_cpu {

namespace {

void finish(Block& block, Barrier& barrier) {
  for (std::uint32_t w = 0; w < block.warps.size(); ++w) {
    for (std::uint32_t rest = barrier.waiting[w]; rest; rest &= rest - 1) {
      Thread& t = block.threads[w * kWarp + static_cast<std::uint32_t>(std::countr_zero(rest))];
      if (machine.checking) t.clock.join(barrier.clock);
    }
    wake(block, w, barrier.waiting[w]);
  }
  barrier = {};
}

void arrive(std::uint32_t id, std::uint32_t threads, const Site& site) {
  Barrier& barrier = here().barriers[id];
  const bool same_line = barrier.site.line == site.line && !std::strcmp(barrier.site.file, site.file);
  if (barrier.arrived && id == 0 && !same_line)
    fault("divergence: threads meet in __syncthreads at {} and at {}", describe(barrier.site), describe(site));
  if (threads % kWarp) fault("named barrier {} at {}: {} threads are no whole warps", id, describe(site), threads);
  if (barrier.arrived && barrier.expected != threads)
    fault("named barrier {}: {} threads at {}, {} at {}", id, barrier.expected, describe(barrier.site), threads,
          describe(site));
  barrier.site = site, barrier.expected = threads;
  if (++barrier.arrived > (threads ? threads : here().live))
    fault("named barrier {} at {}: more arrivals than {} threads", id, describe(site), threads);
  race::release(barrier.clock);
}

std::string explain(const Thread& t) {
  const Barrier& barrier = t.block->barriers[t.waits_on];
  return fmt::format("barrier {}, {} of {} threads arrived", t.waits_on, barrier.arrived,
                     barrier.expected ? barrier.expected : t.block->live);
}

void sync(std::uint32_t id, std::uint32_t threads, const char* what, const Site& site) {
  arrive(id, threads, site);
  Barrier& barrier = here().barriers[id];
  barrier.waiting[self().warp] |= 1u << self().lane;
  if (barrier.arrived == (threads ? threads : here().live)) finish(here(), barrier);
  wait(what, site, id, explain);
}

void check_name(std::uint32_t id, const Site& site) {
  if (id == 0 || id >= kBarriers)
    fault("named barrier {} at {}: there are 1 to 15, 0 is __syncthreads", id, describe(site));
}

}  // namespace

void thread_leaves_barriers(Block& block) {
  Barrier& all = block.barriers[0];
  if (all.arrived && all.arrived == block.live) finish(block, all);
}

}  // namespace cuda_on_cpu

void __syncthreads(const cuda_on_cpu::Site& site) { cuda_on_cpu::sync(0, 0, "__syncthreads", site); }

namespace nsa::cuda {

void named_barrier_sync(std::uint32_t id, std::uint32_t threads, const cuda_on_cpu::Site& site) {
  cuda_on_cpu::check_name(id, site);
  cuda_on_cpu::sync(id, threads, "named_barrier_sync", site);
}

void named_barrier_arrive(std::uint32_t id, std::uint32_t threads, const cuda_on_cpu::Site& site) {
  cuda_on_cpu::check_name(id, site);
  cuda_on_cpu::arrive(id, threads, site);
  cuda_on_cpu::Barrier& barrier = cuda_on_cpu::here().barriers[id];
  if (barrier.arrived == threads) cuda_on_cpu::finish(cuda_on_cpu::here(), barrier);
}

void fence_async_proxy(const cuda_on_cpu::Site&) { cuda_on_cpu::race::proxy_fence(); }

}  // namespace nsa::cuda
