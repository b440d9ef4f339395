#include "cuda_on_cpu/mbarrier.h"

#include "cuda_on_cpu/machine.h"
#include "cuda_on_cpu/race.h"
#include "cuda_on_cpu/shared.h"

namespace cuda_on_cpu {

namespace {

constexpr std::uint32_t kMost = (1u << 20) - 1;  // of arrivals, and of bytes in one announcement

void finish_phase(MemoryBarrier& barrier) {
  if (barrier.pending || barrier.bytes) return;
  ++barrier.phase;
  barrier.pending = barrier.count;
  barrier.clock.join(barrier.next);
  barrier.next.clear();
  wake_watchers(&barrier);
}

std::string explain(const Thread& t) {
  const std::uint32_t address = t.waits_on / 2 * 2, parity = t.waits_on % 2;
  const MemoryBarrier& b = t.block->memory_barriers.at(address);
  return fmt::format(
      "parity {} of the mbarrier at shared address {}: in phase {}, {} of {} arrivals and {} bytes missing", parity,
      address, b.phase, b.pending, b.count, b.bytes);
}

bool done(const MemoryBarrier& barrier, std::uint32_t parity) {
  if ((barrier.phase & 1) == (parity & 1)) return false;
  race::acquire(barrier.clock);
  return true;
}

}  // namespace

MemoryBarrier& memory_barrier(const void* p, const char* what, const Site& site) {
  const std::uint32_t address = shared_address(p, what);
  const auto found = here().memory_barriers.find(address);
  if (found == here().memory_barriers.end())
    fault("{} at {}: no mbarrier was initialised at shared address {}", what, describe(site), address);
  MemoryBarrier& barrier = found->second;
  if (machine.checking && self().clock.of(barrier.maker) < barrier.made)
    fault("{} at {}: no barrier between mbarrier_init by thread {} and this", what, describe(site), barrier.maker);
  return barrier;
}

void add_bytes(MemoryBarrier& barrier, std::int64_t bytes) {
  barrier.bytes += bytes;
  finish_phase(barrier);
}

void arrive(MemoryBarrier& barrier, std::uint32_t count, const char* what, const Site& site) {
  if (count > barrier.pending)
    fault("{} at {}: {} arrivals, but phase {} misses only {} of {}", what, describe(site), count, barrier.phase,
          barrier.pending, barrier.count);
  race::release(barrier.next);
  barrier.pending -= count;
  finish_phase(barrier);
}

}  // namespace cuda_on_cpu

namespace nsa::cuda {

using namespace cuda_on_cpu;

void mbarrier_init(Mbarrier* b, std::uint32_t count, const Site& site) {
  const std::uint32_t address = cuda_on_cpu::shared_address(b, "mbarrier_init");
  if (address % 8) fault("mbarrier_init at {}: shared address {} is no multiple of 8", describe(site), address);
  if (count == 0 || count > kMost)
    fault("mbarrier_init at {}: {} arrivals, 1 to {} are possible", describe(site), count, kMost);
  race::touch("mbarrier_init", site, b, sizeof *b, race::Access::write);
  MemoryBarrier& barrier = here().memory_barriers[address] = {};
  barrier.count = barrier.pending = count;
  barrier.maker = self().linear, barrier.made = self().clock.of(self().linear);
  race::own_barrier(here(), address);
}

void mbarrier_fence_init(const Site&) {
  for (auto& [address, barrier] : here().memory_barriers)
    if (barrier.maker == self().linear) barrier.fenced = true;
}

void mbarrier_arrive(Mbarrier* b, std::uint32_t count, const Site& site) {
  arrive(memory_barrier(b, "mbarrier_arrive", site), count, "mbarrier_arrive", site);
}

void mbarrier_expect(Mbarrier* b, std::uint32_t bytes, const Site& site) {
  if (bytes > kMost) fault("mbarrier_expect at {}: {} bytes, at most {} at once", describe(site), bytes, kMost);
  memory_barrier(b, "mbarrier_expect", site).bytes += bytes;
}

void mbarrier_arrive_expect(Mbarrier* b, std::uint32_t bytes, const Site& site) {
  mbarrier_expect(b, bytes, site);
  arrive(memory_barrier(b, "mbarrier_arrive_expect", site), 1, "mbarrier_arrive_expect", site);
}

void mbarrier_complete(Mbarrier* b, std::uint32_t bytes, const Site& site) {
  add_bytes(memory_barrier(b, "mbarrier_complete", site), -std::int64_t{bytes});
}

bool mbarrier_test(Mbarrier* b, std::uint32_t parity, const Site& site) {
  return done(memory_barrier(b, "mbarrier_test", site), parity);
}

void mbarrier_wait(Mbarrier* b, std::uint32_t parity, const Site& site) {
  MemoryBarrier& barrier = memory_barrier(b, "mbarrier_wait", site);
  while (!done(barrier, parity))
    watch(&barrier, "mbarrier_wait", site, cuda_on_cpu::shared_address(b, "mbarrier_wait") | (parity & 1), explain);
}

}  // namespace nsa::cuda
