#include "cuda_on_cpu/atomic.h"

#include <cstring>

#include "cuda_on_cpu/machine.h"
#include "cuda_on_cpu/race.h"

namespace cuda_on_cpu {

namespace {

/// A counter passes on to other blocks what its releasers knew.
void release_to(Clock& counter) {
  Thread& me = self();
  counter.learn(here().serial, std::make_shared<const Clock::Ticks>(me.clock.ticks));
  for (const auto& [serial, known] : me.clock.others) counter.learn(serial, known);
  ++me.clock.ticks[me.linear];
}

void acquire_from(const Clock& counter) {
  Thread& me = self();
  for (const auto& [serial, known] : counter.others) {
    if (serial == here().serial) {
      me.clock.join({*known, {}});
    } else {
      me.clock.learn(serial, known);
    }
  }
}

}  // namespace

void begin_atomic(const void* p, std::size_t bytes, bool writes, Ordering ordering, const char* what,
                  const Site& site) {
  if (reinterpret_cast<std::uintptr_t>(p) % bytes) fault("{} at {}: misaligned", what, describe(site));
  if (!machine.checking) return;
  race::touch(what, site, p, bytes, writes ? race::Access::atomic : race::Access::atomic_read);
  if (ordering == Ordering::acquire || ordering == Ordering::both) acquire_from(machine.counters[p]);
  if (ordering == Ordering::release || ordering == Ordering::both) release_to(machine.counters[p]);
}

void end_atomic(const void* p) { wake_watchers(p); }

void copy_unseen(void* to, const void* from, std::size_t bytes) { std::memcpy(to, from, bytes); }

void wait_at_least(const unsigned* counter, unsigned value, const Site& site) {
  const auto explain = [](const Thread& t) { return fmt::format("a counter to reach {}", t.waits_on); };
  while (nsa::cuda::load_acquire(counter, site) < value) watch(counter, "wait_at_least", site, value, explain);
}

}  // namespace cuda_on_cpu
