#include "cuda_on_cpu/copy.h"

#include <cstring>

#include "cuda_on_cpu/machine.h"
#include "cuda_on_cpu/race.h"
#include "cuda_on_cpu/shared.h"

namespace cuda_on_cpu {

namespace {

std::uint32_t my_slot() { return race::slot(here(), race::Agent::copies, self().linear); }

}  // namespace

void start_copy(void* to, const void* from, std::uint32_t bytes, std::uint32_t from_bytes, const Site& site) {
  const std::uint32_t address = shared_address(to, "cp.async");
  if (from_bytes > bytes) fault("cp.async at {}: {} of {} bytes", describe(site), from_bytes, bytes);
  if (address % bytes || (from_bytes && reinterpret_cast<std::uintptr_t>(from) % bytes))
    fault("cp.async at {}: misaligned, {} bytes from {} to shared address {}", describe(site), bytes, from, address);
  Thread& me = self();
  const std::uint32_t group = me.copy_groups + 1;
  if (machine.checking) {
    const race::Actor actor{&me.clock, my_slot(), group, false, race::site_number("cp.async", site)};
    race::touch(actor, from, from_bytes, race::Access::read);
    race::touch(actor, to, bytes, race::Access::write);
  }
  issue({Operation::Kind::copy, &here(), me.linear, group, "cp.async", site, [=] {
           if (from_bytes) std::memcpy(to, from, from_bytes);
           std::memset(static_cast<char*>(to) + from_bytes, 0, bytes - from_bytes);
         }});
}

void wait_for_copies(std::uint32_t groups_left) {
  Thread& me = self();
  if (me.copy_groups <= groups_left) return;
  const std::uint32_t done = me.copy_groups - groups_left;
  complete(Operation::Kind::copy, me.linear, done);
  if (machine.checking) me.clock.set(my_slot(), done);
}

}  // namespace cuda_on_cpu

namespace nsa::cuda {

using namespace cuda_on_cpu;

void cp_async_commit() { ++self().copy_groups; }

void cp_async_arrive(Mbarrier* b, const Site& site) {
  MemoryBarrier& barrier = memory_barrier(b, "cp_async_arrive", site);
  Thread& me = self();
  Block* block = &here();
  const std::uint32_t group = ++me.copy_groups;  // the copies so far are a group of their own
  Clock clock;
  race::release(clock);
  if (machine.checking) clock.set(my_slot(), group);
  const auto arrive_once_landed = [=, &barrier, &me] {
    // In any order: where a copy is still under way, do it now.
    for (auto at = machine.operations.begin(); at != machine.operations.end();) {
      const auto next = std::next(at);
      if (at->kind == Operation::Kind::copy && at->block == block && at->owner == me.linear && at->group <= group) {
        at->run();
        machine.operations.erase(at);
      }
      at = next;
    }
    if (barrier.pending == 0) fault("cp_async_arrive at {}: more arrivals than {}", describe(site), barrier.count);
    barrier.next.join(clock);
    --barrier.pending;
    add_bytes(barrier, 0);
  };
  issue({Operation::Kind::arrival, block, me.linear, group, "cp_async_arrive", site, arrive_once_landed});
}

}  // namespace nsa::cuda
