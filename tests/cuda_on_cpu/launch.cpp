// Starts blocks, lets threads run, ends blocks, and says who waits for what when nothing can run any more.
#include "cuda_on_cpu/launch.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <new>
#include <numeric>

#include "cuda_on_cpu/instrument.h"
#include "cuda_on_cpu/machine.h"
#include "cuda_on_cpu/race.h"
#include "cuda_on_cpu/shared.h"

namespace cuda_on_cpu {

Thread* pick_thread();
bool run_one_operation();
void thread_leaves_barriers(Block& block);

namespace {

constexpr std::size_t kStack = std::size_t{256}
                               << 10;  // kernels may have 32 KB of locals; AddressSanitizer trebles them
constexpr std::size_t kMostResident = 16;
constexpr std::uint32_t kRegisters = 65536;

/// What a thread must not leave behind.
void check_exit(const Thread& me) {
  if (me.bulk_waited < me.bulk_groups)
    fault(
        "the thread ends with a bulk or TMA store that it has not waited for: shared memory may be gone before it is "
        "read");
  for (const Meeting& meeting : my_warp().meetings) {
    if (meeting.mask >> me.lane & 1)
      fault("lane {} exits, but {} at {} waits for it (mask {:08x})", me.lane, meeting.what, describe(meeting.site),
            meeting.mask);
  }
}

void run_thread() {
  begin_context(machine.host);
  Thread& me = self();
  try {
    machine.body();
    check_exit(me);
  } catch (const std::exception& error) {  // a Fault, or a check inside a wrapper
    machine.failed = true, machine.failure = error.what();
  }
  Block& block = *me.block;
  me.finished = true;
  --block.live;
  block.warps[me.warp].live &= ~(1u << me.lane);
  if (!machine.failed) thread_leaves_barriers(block);
  machine.current = nullptr;
  switch_context(me.context, machine.host, true);
}

void check_limits(dim3 grid, dim3 block, std::size_t dynamic_shared) {
  const std::uint64_t blocks = std::uint64_t{grid.x} * grid.y * grid.z,
                      threads = std::uint64_t{block.x} * block.y * block.z;
  if (!blocks || !threads || threads > kMaxThreads || block.z > 64 || grid.y > 65535 || grid.z > 65535)
    fault("launch of ({},{},{}) blocks of ({},{},{}) threads: a GPU refuses it", grid.x, grid.y, grid.z, block.x,
          block.y, block.z);
  if (dynamic_shared > kSharedLimit)
    fault("launch with {} bytes of shared memory: a block has {}", dynamic_shared, kSharedLimit);
}

void start_thread(Block& block, std::uint32_t i) {
  Thread& t = block.threads[i];
  t.block = &block, t.linear = i, t.lane = i % kWarp, t.warp = i / kWarp, t.finished = false, t.waits_in = nullptr;
  t.index = {i % machine.block.x, i / machine.block.x % machine.block.y, i / machine.block.x / machine.block.y};
  t.copy_groups = t.bulk_groups = t.bulk_waited = 0;
  if (!t.context.stack) allocate_stack(t.context, kStack);
  prepare(t.context, run_thread);
  block.warps[t.warp].live |= 1u << t.lane;
  wake(block, t.warp, 1u << t.lane);
}

void start_block(std::uint64_t index) {
  if (machine.spare.empty()) machine.spare.push_back(std::make_unique<Block>());
  std::unique_ptr<Block> block = std::move(machine.spare.back());
  machine.spare.pop_back();
  const std::uint32_t threads = machine.block.x * machine.block.y * machine.block.z,
                      warps = (threads + kWarp - 1) / kWarp;
  const auto plane = std::uint64_t{machine.grid.x} * machine.grid.y;
  block->index = {static_cast<unsigned>(index % machine.grid.x),
                  static_cast<unsigned>(index / machine.grid.x % machine.grid.y), static_cast<unsigned>(index / plane)};
  block->serial = machine.next_serial++;
  block->live = threads, block->ready_warps = 0;
  if (block->threads.size() < threads) block->threads.resize(threads);
  block->warps.assign(warps, Warp{});
  block->priority.resize(warps);
  std::iota(block->priority.begin(), block->priority.end(), 0u);
  for (std::uint32_t i = warps; i > 1; --i) std::swap(block->priority[i - 1], block->priority[machine.random(i)]);
  for (Barrier& barrier : block->barriers) barrier = {};
  block->memory_barriers.clear();
  // What ptxas gives a kernel with __launch_bounds__(threads, 1).
  const std::uint32_t registers = std::min(kRegisters / (warps * kWarp) / 8 * 8, 255u);
  for (Warp& warp : block->warps) warp.registers = registers;
  block->registers_free = kRegisters - registers * warps * kWarp;
  reset_shared(*block);
  race::begin_block(*block, threads);
  for (std::uint32_t i = 0; i < threads; ++i) start_thread(*block, i);
  machine.resident.push_back(std::move(block));
}

void end_finished_blocks() {
  for (std::size_t i = 0; i < machine.resident.size();) {
    Block* block = machine.resident[i].get();
    if (block->live) {
      ++i;
      continue;
    }
    for (const Operation& o : machine.operations) {
      if (o.block == block && o.kind != Operation::Kind::copy)
        fault("block ({},{},{}) ends while {} at {} is not done: nobody has waited for it", block->index.x,
              block->index.y, block->index.z, o.what, describe(o.site));
    }
    for (std::size_t w = 0; w < block->warps.size(); ++w) {
      if (block->warps[w].wgmma_groups != block->warps[w / 4 * 4].wgmma_groups)
        fault(
            "block ({},{},{}): the four warps of a warpgroup issued different wgmma: {} groups in warp {}, {} in warp "
            "{}",
            block->index.x, block->index.y, block->index.z, block->warps[w / 4 * 4].wgmma_groups, w / 4 * 4,
            block->warps[w].wgmma_groups, w);
    }
    std::erase_if(machine.operations, [block](const Operation& o) { return o.block == block; });
    machine.spare.push_back(std::move(machine.resident[i]));
    machine.resident.erase(machine.resident.begin() + static_cast<std::ptrdiff_t>(i));
  }
}

/// Who waits for what; blocks that wait alike are one line, named by the first of them.
std::string who_waits() {
  std::map<std::string, std::vector<const Block*>> lines;
  for (const auto& block : machine.resident) {
    std::map<std::string, std::vector<std::uint32_t>> groups;
    for (std::uint32_t i = 0; i < block->warps.size() * kWarp && i < block->threads.size(); ++i) {
      const Thread& t = block->threads[i];
      if (!(block->warps[t.warp].live >> t.lane & 1) || !t.waits_in) continue;
      const std::string detail = t.explain ? ": " + t.explain(t) : "";
      groups[std::string(t.waits_in) + " at " + describe(t.waits_at) + detail].push_back(i);
    }
    for (const auto& [what, threads] : groups)
      lines[fmt::format("{} threads, {} to {}, in {}", threads.size(), threads.front(), threads.back(), what)]
          .push_back(block.get());
  }
  std::string text;
  for (const auto& [line, blocks] : lines) {
    const uint3 b = blocks.front()->index;
    const std::string more = blocks.size() > 1 ? fmt::format(" and {} more", blocks.size() - 1) : "";
    text += fmt::format("\n  block ({},{},{}){}: {}", b.x, b.y, b.z, more, line);
  }
  return text;
}

void run_blocks(const std::vector<std::uint64_t>& order) {
  std::size_t next = 0;
  const auto at_once = static_cast<std::size_t>(schedule().resident);
  for (;;) {
    end_finished_blocks();
    while (next < order.size() && machine.resident.size() < at_once) start_block(order[next++]);
    if (machine.resident.empty()) return;
    Thread* thread = pick_thread();
    if (!thread) {
      if (run_one_operation()) continue;
      if (next < order.size() && machine.resident.size() < kMostResident) {  // they may wait for a later block
        start_block(order[next++]);
        continue;
      }
      fault("deadlock: no thread can run; there wait{}", who_waits());
    }
    machine.current = thread;
    switch_context(machine.host, thread->context);
    if (machine.failed) throw Fault(machine.failure);
  }
}

std::vector<std::uint64_t> order_of_blocks(std::uint64_t blocks) {
  std::vector<std::uint64_t> order(blocks);
  std::iota(order.begin(), order.end(), std::uint64_t{0});
  if (schedule().order == Order::backward) std::reverse(order.begin(), order.end());
  if (schedule().order == Order::uniform || schedule().order == Order::priority)
    for (std::uint64_t i = blocks; i > 1; --i)
      std::swap(order[i - 1], order[machine.random(static_cast<std::uint32_t>(i))]);
  return order;
}

void leave_launch() {
  for (auto& block : machine.resident) machine.spare.push_back(std::move(block));
  machine.resident.clear();
  machine.operations.clear();
  machine.watchers.clear();
  machine.counters.clear();
  machine.current = nullptr;
  machine.launching = machine.failed = false;
}

}  // namespace

void abandon_thread(const std::string& failure) {
  machine.failed = true, machine.failure = failure;
  Context& context = self().context;
  machine.current = nullptr;
  switch_context(context, machine.host, true);
  std::abort();  // nothing switches back
}

void run_grid(const std::string& name, dim3 grid, dim3 block, std::size_t dynamic_shared, std::function<void()> body) {
  if (machine.launching) fault("launch of {} from a kernel", name);
  machine.kernel = name;
  check_limits(grid, block, dynamic_shared);
  machine.grid = grid, machine.block = block, machine.dynamic_shared = dynamic_shared, machine.body = std::move(body);
  machine.random_state = (schedule().seed + 1) * 0x9E3779B97F4A7C15ull;
  machine.first_serial = machine.next_serial;
  machine.checking = schedule().find_races && instrumented();
  machine.launching = true;
  try {
    run_blocks(order_of_blocks(std::uint64_t{grid.x} * grid.y * grid.z));
  } catch (...) {
    leave_launch();
    throw;
  }
  leave_launch();
}

}  // namespace cuda_on_cpu
