// The emulated machine: blocks whose threads are fibers on one CPU thread. Only a thread that waits is left for another
// one, so everything between two waits is atomic here; what that hides, the race checker (race.h) finds.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "cuda_on_cpu/builtins.h"
#include "cuda_on_cpu/clock.h"
#include "cuda_on_cpu/context.h"
#include "cuda_on_cpu/fault.h"
#include "cuda_on_cpu/schedule.h"

namespace cuda_on_cpu {

constexpr std::uint32_t kWarp = 32, kMaxThreads = 1024, kBarriers = 16;

struct Block;
struct Thread;
/// Says more about a wait, for a deadlock's report.
using Explain = std::string (*)(const Thread&);

struct Thread {
  Context context;
  Block* block = nullptr;
  uint3 index{};
  std::uint32_t linear = 0, lane = 0, warp = 0;
  bool finished = false;
  const char* waits_in = nullptr;  ///< null: it runs or can run
  Site waits_at;
  std::uint32_t waits_on = 0;  ///< which barrier, mask, address: explain() knows
  Explain explain = nullptr;
  Clock clock;                                     ///< what of the other threads' work lies before this moment
  std::uint32_t copy_groups = 0, bulk_groups = 0;  ///< committed groups of cp.async and of bulk stores
  std::uint32_t bulk_waited = 0;                   ///< groups whose reads were waited for
};

/// Lanes of a warp that have come to a collective instruction; the last one computes for all.
struct Meeting {
  std::uint32_t mask = 0, arrived = 0;
  const char* what = nullptr;
  Site site;
};

struct Warp {
  std::uint32_t live = 0, ready = 0;
  std::vector<Meeting> meetings;
  void* arguments[kWarp] = {};
  std::uint32_t wgmma_groups = 0;             ///< committed
  bool wgmma_fenced = false;                  ///< a wgmma.fence since the last wait
  std::vector<const float*> wgmma_in_flight;  ///< accumulators of lane 0
  std::uint32_t registers = 0;                ///< a thread's, after setmaxnreg
};

/// __syncthreads (0) and the named barriers.
struct Barrier {
  std::uint32_t expected = 0, arrived = 0;  ///< expected 0: all live threads
  std::uint32_t waiting[kMaxThreads / kWarp] = {};
  Site site;
  Clock clock;
};

struct MemoryBarrier {
  std::uint32_t count = 0, pending = 0, phase = 0;  ///< phase: how many were completed
  std::int64_t bytes = 0;                           ///< announced and not landed; negative: landed before announced
  std::uint32_t maker = 0, made = 0;                ///< the thread that initialised it, and its tick
  bool fenced = false;                              ///< fence.mbarrier_init after that
  Clock clock, next;                                ///< of the completed phases; of this one so far
};

/// Something a copy engine or a tensor core does on its own.
struct Operation {
  enum class Kind : std::uint8_t { copy, arrival, store, load, wgmma } kind{};
  Block* block = nullptr;
  std::uint32_t owner = 0;  ///< thread, for wgmma the warp
  std::uint32_t group = 0;  ///< it belongs to the group that is committed as number `group`
  const char* what = "";
  Site site;
  std::function<void()> run;
};

/// An array in shared memory, with its place.
struct SharedArray {
  std::uint32_t offset = 0;
  std::size_t bytes = 0;
  const void* key = nullptr;  ///< of a static one
};

struct Block {
  Block() = default;
  Block(const Block&) = delete;
  Block& operator=(const Block&) = delete;
  ~Block() { std::free(shared); }

  std::uint32_t serial = 0;  ///< counts all blocks of all launches
  uint3 index{};
  std::uint32_t live = 0, ready_warps = 0;
  std::vector<Thread> threads;
  std::vector<Warp> warps;
  std::vector<std::uint32_t> priority;  ///< warps, the most eager first
  Barrier barriers[kBarriers];
  std::map<std::uint32_t, MemoryBarrier> memory_barriers;  ///< by shared address
  std::map<std::uint64_t, std::uint32_t> agents;           ///< slots of asynchronous agents in clocks (race.h)
  std::uint32_t agent_slots = 0;
  /// Of every thread, for each fence.proxy.async: its tick, and the groups of its cp.async known to be done.
  std::vector<std::vector<std::pair<std::uint32_t, std::uint32_t>>> proxy_fences;
  void* shadow = nullptr;  ///< of shared memory (race.cpp)
  unsigned char* shared = nullptr;
  std::uint32_t shared_end = 0;
  std::size_t shared_used = 0, shared_static = 0;  ///< bytes as a GPU counts them, without red zones
  std::vector<SharedArray> arrays;
  std::uint32_t registers_free = 0;
};

struct Machine {
  Context host;
  Thread* current = nullptr;
  std::vector<std::unique_ptr<Block>> resident, spare;
  std::list<Operation> operations;
  std::vector<std::pair<const void*, Thread*>> watchers;
  std::string kernel, failure;
  bool failed = false, launching = false, checking = false;
  dim3 grid, block;
  std::size_t dynamic_shared = 0;
  std::uint32_t first_serial = 1, next_serial = 1;  ///< of this launch's blocks; of the next block
  std::function<void()> body;
  std::uint64_t random_state = 1;
  std::map<const void*, Clock> counters;  ///< what acquire and release operations on memory pass on (atomic.cpp)

  std::uint64_t random();
  /// Uniform in [0, n).
  std::uint32_t random(std::uint32_t n) { return static_cast<std::uint32_t>(((random() >> 32) * n) >> 32); }
};

extern Machine machine;
inline Thread& self() { return *machine.current; }
inline Block& here() { return *machine.current->block; }
inline Warp& my_warp() { return here().warps[self().warp]; }

/// The current thread stops until somebody wakes it.
void wait(const char* what, const Site& site, std::uint32_t on = 0, Explain explain = nullptr);
void wake(Block& block, std::uint32_t warp, std::uint32_t lanes);
/// The current thread stops until wake_watchers(key); many may have to look at their condition again.
void watch(const void* key, const char* what, const Site& site, std::uint32_t on = 0, Explain explain = nullptr);
void wake_watchers(const void* key);

/// At once, or queued, as the schedule says.
void issue(Operation operation);
/// Runs what `owner` has issued in groups up to `group`.
void complete(Operation::Kind kind, std::uint32_t owner, std::uint32_t group);

}  // namespace cuda_on_cpu
