// Happens-before race checker. Every byte pair of shared and device memory remembers who wrote and who read it last, as
// (agent, tick of that agent's clock); an access that does not know of a conflicting one is a race, in whatever order
// the two happened to run. Agents are threads and what works beside them: a thread's copies, a warp's tensor core, the
// copy engine as seen through an mbarrier.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cuda_on_cpu/machine.h"

namespace cuda_on_cpu::race {

enum class Access : std::uint8_t { read, write, atomic, atomic_read };

/// Agents that are not threads. Their ticks are numbers of groups (copy, bulk, wgmma) or of phases (loads).
enum class Agent : std::uint32_t {
  copies,       ///< cp.async of a thread
  bulk_reads,   ///< shared memory that a thread's bulk stores read
  bulk_writes,  ///< device memory that they write
  loads,        ///< TMA and bulk loads that complete on an mbarrier
  wgmma,        ///< of a warp
};

void begin_block(Block& block, std::uint32_t threads);
/// A new array in shared memory: what lies outside of all of them is out of bounds.
void own_shared(Block& block, std::uint32_t offset, std::size_t bytes);
/// Device memory (runtime.cpp): [begin, begin + bytes), with guard bytes on both sides.
void own_device(const void* begin, std::size_t bytes, std::size_t guard);
void disown_device(const void* begin);

/// The slot of an agent in its block's clocks.
std::uint32_t slot(Block& block, Agent agent, std::uint32_t id);

/// What the current thread did so far lies before whatever acquires `object`.
void release(Clock& object);
void acquire(const Clock& object);
/// fence.proxy.async of the current thread.
void proxy_fence();

/// Makes an mbarrier of 8 bytes of shared memory: no plain access may touch it any more.
void own_barrier(Block& block, std::uint32_t address);

/// By the current thread, in a wrapper: `what` at `site`.
void touch(const char* what, const Site& site, const void* p, std::size_t bytes, Access access);
/// By the current thread, compiled code at program counter `pc`.
void touch_plain(const void* pc, const void* p, std::size_t bytes, bool write);

/// Asynchronous work: its accesses are entered when it is issued.
struct Actor {
  const Clock* clock = nullptr;  ///< of who issued it
  std::uint32_t slot = 0, tick = 0;
  bool async_proxy = false;  ///< TMA, wgmma: generic writes must have been fenced
  std::uint32_t site = 0;    ///< of site_number()
};
std::uint32_t site_number(const char* what, const Site& site);
void touch(const Actor& actor, const void* p, std::size_t bytes, Access access);

}  // namespace cuda_on_cpu::race
