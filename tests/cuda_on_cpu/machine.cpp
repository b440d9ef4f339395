#include "cuda_on_cpu/machine.h"

#include <algorithm>
#include <bit>

#include "cuda_on_cpu/race.h"

namespace cuda_on_cpu {

Machine machine;

uint3 thread_index() { return self().index; }
uint3 block_index() { return here().index; }
dim3 block_size() { return machine.block; }
dim3 grid_size() { return machine.grid; }

std::uint64_t Machine::random() {
  random_state ^= random_state << 13, random_state ^= random_state >> 7, random_state ^= random_state << 17;
  return random_state;
}

std::string describe(const Site& site) {
  const std::string file = site.file;
  return file.substr(file.find_last_of('/') + 1) + ":" + std::to_string(site.line);
}

void fault_text(const std::string& text) {
  std::string who = "kernel " + machine.kernel;
  if (machine.current) {
    const uint3 b = here().index, t = self().index;
    who += fmt::format(", block ({},{},{}), thread ({},{},{})", b.x, b.y, b.z, t.x, t.y, t.z);
  }
  throw Fault(fmt::format("{}, {}: {}", who, schedule().describe(), text));
}

namespace {

std::uint32_t nth_bit(std::uint32_t bits, std::uint32_t n) {
  while (n--) bits &= bits - 1;
  return static_cast<std::uint32_t>(std::countr_zero(bits));
}

std::uint32_t choose(std::uint32_t bits) {
  switch (schedule().order) {
    case Order::forward: return static_cast<std::uint32_t>(std::countr_zero(bits));
    case Order::backward: return 31u - static_cast<std::uint32_t>(std::countl_zero(bits));
    default: return nth_bit(bits, machine.random(static_cast<std::uint32_t>(std::popcount(bits))));
  }
}

std::uint32_t choose_warp(Block& block) {
  if (schedule().order != Order::priority) return choose(block.ready_warps);
  const auto warps = static_cast<std::uint32_t>(block.warps.size());
  if (machine.random(1024) == 0)
    std::swap(block.priority[machine.random(warps)], block.priority[machine.random(warps)]);
  return *std::find_if(block.priority.begin(), block.priority.end(),
                       [&](std::uint32_t w) { return block.ready_warps >> w & 1; });
}

Block* choose_block() {
  const auto can_run = [](const auto& block) { return block->ready_warps != 0; };
  auto& blocks = machine.resident;
  if (schedule().order == Order::uniform && blocks.size() > 1) {
    const std::size_t n = static_cast<std::size_t>(std::count_if(blocks.begin(), blocks.end(), can_run));
    std::size_t skip = n ? machine.random(static_cast<std::uint32_t>(n)) : 0;
    for (const auto& block : blocks)
      if (can_run(block) && skip-- == 0) return block.get();
    return nullptr;
  }
  if (schedule().order == Order::priority && blocks.size() > 1 && machine.random(64) == 0)
    std::swap(blocks[0], blocks[machine.random(static_cast<std::uint32_t>(blocks.size()))]);
  const auto found = std::find_if(blocks.begin(), blocks.end(), can_run);
  return found == blocks.end() ? nullptr : found->get();
}

using Operations = std::list<Operation>;

/// Operations of one warp's tensor core end in order; all others in any.
Operations::iterator first_of_its_queue(Operations::iterator chosen) {
  if (chosen->kind != Operation::Kind::wgmma) return chosen;
  return std::find_if(machine.operations.begin(), chosen, [chosen](const Operation& o) {
    return o.kind == chosen->kind && o.block == chosen->block && o.owner == chosen->owner;
  });
}

void run_operation(Operations::iterator at) {
  const Operation operation = std::move(*at);
  machine.operations.erase(at);
  operation.run();
}

void run_any_operation() {
  const std::uint32_t n = machine.random(static_cast<std::uint32_t>(machine.operations.size()));
  run_operation(first_of_its_queue(std::next(machine.operations.begin(), n)));
}

}  // namespace

Thread* pick_thread() {
  if (!machine.operations.empty() && schedule().async == Async::any && machine.random(8) == 0) run_any_operation();
  Block* block = choose_block();
  if (!block) return nullptr;
  const std::uint32_t w = choose_warp(*block);
  Warp& warp = block->warps[w];
  const std::uint32_t lane = choose(warp.ready);
  warp.ready &= ~(1u << lane);
  if (!warp.ready) block->ready_warps &= ~(1u << w);
  return &block->threads[w * kWarp + lane];
}

bool run_one_operation() {
  if (machine.operations.empty()) return false;
  run_any_operation();
  return true;
}

void wait(const char* what, const Site& site, std::uint32_t on, Explain explain) {
  Thread& me = self();
  me.waits_in = what, me.waits_at = site, me.waits_on = on, me.explain = explain;
  Thread* next = pick_thread();
  if (next != &me) {
    machine.current = next;
    switch_context(me.context, next ? next->context : machine.host);
  }
  me.waits_in = nullptr;
}

void wake(Block& block, std::uint32_t warp, std::uint32_t lanes) {
  block.warps[warp].ready |= lanes;
  if (lanes) block.ready_warps |= 1u << warp;
}

void watch(const void* key, const char* what, const Site& site, std::uint32_t on, Explain explain) {
  machine.watchers.emplace_back(key, &self());
  wait(what, site, on, explain);
}

void wake_watchers(const void* key) {
  std::erase_if(machine.watchers, [key](const auto& watcher) {
    if (watcher.first != key) return false;
    wake(*watcher.second->block, watcher.second->warp, 1u << watcher.second->lane);
    return true;
  });
}

void issue(Operation operation) {
  if (schedule().async == Async::early) return operation.run();
  machine.operations.push_back(std::move(operation));
}

void complete(Operation::Kind kind, std::uint32_t owner, std::uint32_t group) {
  for (auto at = machine.operations.begin(); at != machine.operations.end();) {
    const auto next = std::next(at);
    if (at->kind == kind && at->block == &here() && at->owner == owner && at->group <= group) run_operation(at);
    at = next;
  }
}

}  // namespace cuda_on_cpu
