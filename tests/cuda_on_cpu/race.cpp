#include "cuda_on_cpu/race.h"

#include <sys/mman.h>

#include <algorithm>
#include <map>
#include <new>
#include <tuple>

#include "cuda_on_cpu/program_counter.h"
#include "cuda_on_cpu/shared.h"

namespace cuda_on_cpu::race {

namespace {

struct Epoch {
  std::uint32_t block = 0, agent = 0, tick = 0;
  std::uint32_t site = 0;  ///< a program counter (program_counter.h), or kWrapper + index into sites
};

enum Flags : std::uint32_t { kWritten = 1, kAtomic = 2, kBarrier = 4, kAsyncProxy = 8 };

struct Cell {
  Epoch write, read[2];
  std::uint32_t owner = 0;  ///< shared memory: serial of the block whose array this is
  std::uint32_t flags = 0;
};

constexpr std::size_t kGranule = 2;  // bf16: no kernel has threads that share two bytes
constexpr std::uint32_t kWrapper = 1u << 31;

struct Region {
  const char* begin = nullptr;
  std::size_t bytes = 0, guard = 0;
  Cell* cells = nullptr;  ///< guards included
  bool shared = false;
};

std::vector<Region> device_memory;  // by address, disjoint
std::vector<std::string> sites;
std::map<std::tuple<const char*, std::string, unsigned>, std::uint32_t> site_numbers;

Cell* map_cells(std::size_t bytes) {
  void* memory = mmap(nullptr, (bytes / kGranule + 2) * sizeof(Cell), PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
  return static_cast<Cell*>(memory);
}

/// Of the running block's shared memory: one shadow a Block object.
Cell* shared_cells(Block& block) {
  if (!block.shadow) block.shadow = map_cells(kSharedSpan);
  return static_cast<Cell*>(block.shadow);
}

const Region* device_region(const char* p) {
  static std::size_t last = 0;
  const auto holds = [p](const Region& r) { return p >= r.begin - r.guard && p < r.begin + r.bytes + r.guard; };
  if (last < device_memory.size() && holds(device_memory[last])) return &device_memory[last];
  auto at = std::upper_bound(device_memory.begin(), device_memory.end(), p,
                             [](const char* q, const Region& r) { return q < r.begin - r.guard; });
  if (at == device_memory.begin() || !holds(*--at)) return nullptr;
  last = static_cast<std::size_t>(at - device_memory.begin());
  return &*at;
}

std::string name_of_site(std::uint32_t site) {
  return site & kWrapper ? sites[site - kWrapper] : describe_program_counter(site);
}

std::string name_of_agent(const Block& block, std::uint32_t agent) {
  constexpr const char* kNames[] = {"cp.async of thread", "bulk store of thread", "bulk store of thread",
                                    "copies that complete on the mbarrier at shared address", "wgmma of warp"};
  for (const auto& [key, slot] : block.agents)
    if (slot == agent) return fmt::format("{} {}", kNames[key >> 32], static_cast<std::uint32_t>(key));
  return fmt::format("thread {}", agent);
}

std::string name_of(const Epoch& e) {
  std::string block;
  const Block* whose = nullptr;
  for (const auto& b : machine.resident)
    if (b->serial == e.block) whose = b.get();
  if (!whose || whose != &here()) block = fmt::format(" of block number {}", e.block - machine.first_serial);
  const std::uint32_t threads = machine.block.x * machine.block.y * machine.block.z;
  const std::string agent = whose               ? name_of_agent(*whose, e.agent)
                            : e.agent < threads ? fmt::format("thread {}", e.agent)
                                                : "an asynchronous copy or product";
  return fmt::format("{}{} ({})", agent, block, name_of_site(e.site));
}

std::string name_of_place(const Region& region, const char* p) {
  if (!region.shared) return fmt::format("device memory +{} of {} bytes", p - region.begin, region.bytes);
  const auto offset = static_cast<std::uint32_t>(p - region.begin);
  for (std::size_t i = 0; i < here().arrays.size(); ++i) {
    const SharedArray& a = here().arrays[i];
    if (offset >= a.offset && offset < a.offset + a.bytes)
      return fmt::format("shared memory, array {} +{} of {} bytes", i, offset - a.offset, a.bytes);
  }
  return fmt::format("shared memory at address {}", offset);
}

struct Visit {
  const Region& region;
  const char* place;
  const Actor& actor;

  Epoch epoch() const { return {here().serial, actor.slot, actor.tick, actor.site}; }
  bool current(const Epoch& e) const {
    return region.shared ? e.block == here().serial : e.block >= machine.first_serial;
  }
  bool ordered(const Epoch& e) const {
    if (!current(e)) return true;
    if (e.block == here().serial) return e.tick <= actor.clock->of(e.agent);
    const auto other = actor.clock->others.find(e.block);
    return other != actor.clock->others.end() && e.agent < other->second->size() && e.tick <= (*other->second)[e.agent];
  }
  [[noreturn]] void report(const char* kind, const Epoch& e) const {
    fault("race, {}: {}: {} against {}", kind, name_of_place(region, place), name_of(epoch()), name_of(e));
  }
  [[noreturn]] void report(const char* what) const {
    fault("{}: {}, by {}", what, name_of_place(region, place), name_of(epoch()));
  }
};

/// A generic write that the async proxy reads must have been fenced by who wrote it, and the fence be known here.
bool fenced(const Visit& visit, const Epoch& write) {
  Block& block = here();
  std::uint32_t thread = write.agent, copies = 0;
  if (thread >= block.proxy_fences.size()) {  // cp.async: its thread fences after waiting for the group
    for (const auto& [key, slot] : block.agents)
      if (slot == write.agent) thread = static_cast<std::uint32_t>(key), copies = write.tick;
    if (thread >= block.proxy_fences.size()) return true;
  }
  for (const auto& [tick, copies_done] : block.proxy_fences[thread])
    if ((copies ? copies_done >= copies : tick >= write.tick) && tick < visit.actor.clock->of(thread)) return true;
  return false;
}

void check_proxy(const Visit& visit, const Cell& cell) {
  if (!visit.region.shared || !visit.actor.async_proxy || !(cell.flags & kWritten) || cell.flags & kAsyncProxy) return;
  if (!visit.current(cell.write) || fenced(visit, cell.write)) return;
  visit.report("no fence.proxy.async between a write and the async proxy's access", cell.write);
}

void read(const Visit& visit, Cell& cell, bool atomic) {
  if (visit.region.shared && !(cell.flags & kWritten)) visit.report("read of shared memory that nobody wrote");
  if (!(atomic && cell.flags & kAtomic) && !visit.ordered(cell.write)) visit.report("read after write", cell.write);
  check_proxy(visit, cell);
  if (atomic) return;
  for (Epoch& r : cell.read)
    if (visit.ordered(r)) {
      r = visit.epoch();
      return;
    }
  // Readers of two warps are kept: whoever writes next is at most one of them.
  cell.read[cell.read[0].agent / kWarp == visit.actor.slot / kWarp ? 0 : 1] = visit.epoch();
}

void write(const Visit& visit, Cell& cell, bool atomic) {
  if (!(atomic && cell.flags & kAtomic) && !visit.ordered(cell.write)) visit.report("write after write", cell.write);
  for (const Epoch& r : cell.read)
    if (!visit.ordered(r)) visit.report("write after read", r);
  check_proxy(visit, cell);
  cell.write = visit.epoch();
  cell.flags = kWritten | (atomic ? kAtomic : 0u) | (visit.actor.async_proxy ? kAsyncProxy : 0u);
}

void visit_cell(const Visit& visit, Cell& cell, Access access) {
  if (visit.region.shared && cell.owner != here().serial) visit.report("access outside of every array");
  if (!visit.region.shared &&
      (visit.place < visit.region.begin || visit.place >= visit.region.begin + visit.region.bytes))
    visit.report("access outside of the allocation");
  if (cell.flags & kBarrier) visit.report("plain access to an mbarrier");
  if (access == Access::read || access == Access::atomic_read) return read(visit, cell, access == Access::atomic_read);
  write(visit, cell, access == Access::atomic);
}

void visit_all(const Region& region, const Actor& actor, const char* p, std::size_t bytes, Access access) {
  const char* base = region.begin - region.guard;
  const std::size_t first = static_cast<std::size_t>(p - base) / kGranule,
                    last = (static_cast<std::size_t>(p - base) + bytes - 1) / kGranule;
  for (std::size_t i = first; i <= last; ++i)
    visit_cell({region, std::max(p, base + i * kGranule), actor}, region.cells[i], access);
}

Actor current_actor(std::uint32_t site) {
  const Thread& me = self();
  return {&me.clock, me.linear, me.clock.of(me.linear), false, site};
}

void tick() { ++self().clock.ticks[self().linear]; }

}  // namespace

void begin_block(Block& block, std::uint32_t threads) {
  block.agents.clear();
  block.agent_slots = threads;
  block.proxy_fences.assign(threads, {});
  for (std::uint32_t t = 0; t < threads; ++t) {
    block.threads[t].clock.clear();
    if (machine.checking) block.threads[t].clock.set(t, 1);
  }
}

void own_shared(Block& block, std::uint32_t offset, std::size_t bytes) {
  if (!machine.checking) return;
  Cell* cells = shared_cells(block);
  std::for_each(cells + offset / kGranule, cells + (offset + bytes + kGranule - 1) / kGranule,
                [&](Cell& cell) { cell.owner = block.serial, cell.flags = 0; });
}

void own_barrier(Block& block, std::uint32_t address) {
  if (!machine.checking) return;
  Cell* cells = shared_cells(block) + address / kGranule;
  for (int i = 0; i < 4; ++i) cells[i].flags |= kBarrier;
}

void own_device(const void* begin, std::size_t bytes, std::size_t guard) {
  const Region region{static_cast<const char*>(begin), bytes, guard, map_cells(bytes + 2 * guard), false};
  device_memory.insert(std::upper_bound(device_memory.begin(), device_memory.end(), region,
                                        [](const Region& a, const Region& b) { return a.begin < b.begin; }),
                       region);
}

void disown_device(const void* begin) {
  std::erase_if(device_memory, [begin](const Region& r) {
    if (r.begin != begin) return false;
    munmap(r.cells, ((r.bytes + 2 * r.guard) / kGranule + 2) * sizeof(Cell));
    return true;
  });
}

std::uint32_t slot(Block& block, Agent agent, std::uint32_t id) {
  const auto [at, fresh] = block.agents.try_emplace(std::uint64_t{static_cast<std::uint32_t>(agent)} << 32 | id, 0);
  if (fresh) at->second = block.agent_slots++;
  return at->second;
}

void release(Clock& object) {
  if (!machine.checking) return;
  object.join(self().clock);
  tick();
}

void acquire(const Clock& object) {
  if (machine.checking) self().clock.join(object);
}

void proxy_fence() {
  if (!machine.checking) return;
  Thread& me = self();
  const std::uint32_t copies = me.clock.of(slot(here(), Agent::copies, me.linear));
  here().proxy_fences[me.linear].emplace_back(me.clock.of(me.linear), copies);
  tick();
}

std::uint32_t site_number(const char* what, const Site& site) {
  const auto [at, fresh] = site_numbers.try_emplace({what, site.file, site.line}, 0);
  if (fresh) {
    at->second = kWrapper + static_cast<std::uint32_t>(sites.size());
    sites.push_back(fmt::format("{} at {}", what, describe(site)));
  }
  return at->second;
}

void touch(const Actor& actor, const void* p, std::size_t bytes, Access access) {
  if (!machine.checking || !bytes) return;
  const char* place = static_cast<const char*>(p);
  Block& block = here();
  const char* shared = reinterpret_cast<const char*>(block.shared);
  if (place >= shared && place < shared + kSharedSpan)
    return visit_all({shared, kSharedSpan, 0, shared_cells(block), true}, actor, place, bytes, access);
  if (const Region* region = device_region(place)) visit_all(*region, actor, place, bytes, access);
}

void touch(const char* what, const Site& site, const void* p, std::size_t bytes, Access access) {
  if (machine.checking) touch(current_actor(site_number(what, site)), p, bytes, access);
}

void touch_plain(const void* pc, const void* p, std::size_t bytes, bool write) {
  const char *place = static_cast<const char*>(p), *stack = self().context.stack;
  if (place >= stack && place < stack + self().context.stack_bytes) return;
  const bool shared = in_shared(p);
  if (!shared && !device_region(place)) return;
  const std::uint32_t site = program_counter_number(pc);
  if (std::has_single_bit(bytes) && bytes <= 16 && reinterpret_cast<std::uintptr_t>(p) % bytes)
    fault("misaligned access of {} bytes at {}", bytes, describe_program_counter(site));
  touch(current_actor(site), p, bytes, write ? Access::write : Access::read);
}

}  // namespace cuda_on_cpu::race
