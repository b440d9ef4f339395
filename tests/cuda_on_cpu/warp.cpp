#include "cuda_on_cpu/warp.h"

#include <cstring>

#include "cuda_on_cpu/machine.h"
#include "cuda_on_cpu/race.h"

namespace cuda_on_cpu {

std::uint32_t lane_of_thread() { return self().lane; }

void meet(std::uint32_t mask, const char* what, bool aligned, void* argument, Leader leader, const Site& site) {
  Thread& me = self();
  Warp& warp = my_warp();
  const std::uint32_t bit = 1u << me.lane;
  if (!(mask & bit))
    fault("{} at {}: lane {} calls it with mask {:08x}, which it is not in", what, describe(site), me.lane, mask);
  if (mask & ~warp.live)
    fault("{} at {}: mask {:08x} has lanes that exited or never were (live: {:08x})", what, describe(site), mask,
          warp.live);
  auto meeting = warp.meetings.begin();
  while (meeting != warp.meetings.end() && !(meeting->mask & mask)) ++meeting;
  if (meeting == warp.meetings.end()) meeting = warp.meetings.insert(meeting, {mask, 0, what, site});
  const bool same_line = meeting->site.line == site.line && !std::strcmp(meeting->site.file, site.file);
  if (meeting->mask != mask || std::strcmp(meeting->what, what) || (aligned && !same_line))
    fault("divergence: lanes of a warp meet in {} at {} (mask {:08x}) and {} at {} (mask {:08x})", meeting->what,
          describe(meeting->site), meeting->mask, what, describe(site), mask);
  meeting->arrived |= bit;
  warp.arguments[me.lane] = argument;
  if (meeting->arrived == mask) {
    warp.meetings.erase(meeting);
    leader(warp.arguments, mask);
    wake(here(), me.warp, mask);
  }
  wait(what, site, mask, [](const Thread& t) { return fmt::format("of lanes {:08x}", t.waits_on); });
}

std::uint32_t shuffle_source(Shuffle kind, std::uint32_t lane, std::uint32_t b, std::uint32_t width) {
  if (width == 0 || width > kWarp || (width & (width - 1))) fault("shuffle: width {}", width);
  const std::uint32_t segment = kWarp - width, b5 = b & 31, clamp = kind == Shuffle::up ? 0 : 31;
  const std::uint32_t highest = (lane & segment) | (clamp & ~segment & 31), lowest = lane & segment;
  switch (kind) {
    case Shuffle::up: return lane >= highest + b5 ? lane - b5 : lane;
    case Shuffle::down: return lane + b5 <= highest ? lane + b5 : lane;
    case Shuffle::exchange: return (lane ^ b5) <= highest ? lane ^ b5 : lane;
    default: return lowest | (b5 & ~segment);
  }
}

void check_shuffle(std::uint32_t source, std::uint32_t mask) {
  if (!(mask >> source & 1)) fault("a shuffle reads lane {}, which is not in its mask {:08x}", source, mask);
}

namespace {

struct Match {
  std::uint64_t value;
  std::uint32_t result;
};

}  // namespace

std::uint32_t match_any(std::uint32_t mask, std::uint64_t value, const Site& site) {
  Match mine{value, 0};
  meet(
      mask, "__match_any_sync", false, &mine,
      [](void* const* arguments, std::uint32_t m) {
        for_lanes<Match>(arguments, m, [&](std::uint32_t, Match& a) {
          for_lanes<Match>(arguments, m,
                           [&](std::uint32_t lane, Match& b) { a.result |= (a.value == b.value ? 1u : 0u) << lane; });
        });
      },
      site);
  return mine.result;
}

std::uint32_t match_all(std::uint32_t mask, std::uint64_t value, const Site& site) {
  Match mine{value, 0};
  meet(
      mask, "__match_all_sync", false, &mine,
      [](void* const* arguments, std::uint32_t m) {
        const auto first = static_cast<Match*>(arguments[std::countr_zero(m)])->value;
        bool all = true;
        for_lanes<Match>(arguments, m, [&](std::uint32_t, Match& a) { all = all && a.value == first; });
        for_lanes<Match>(arguments, m, [&](std::uint32_t, Match& a) { a.result = all ? m : 0; });
      },
      site);
  return mine.result;
}

}  // namespace cuda_on_cpu

using namespace cuda_on_cpu;

void __syncwarp(unsigned mask, const Site& site) {
  meet(
      mask, "__syncwarp", false, nullptr,
      [](void* const*, std::uint32_t m) {
        if (!machine.checking) return;
        Clock all;
        Thread* lanes = &here().threads[self().warp * kWarp];
        for (std::uint32_t lane = 0; lane < kWarp; ++lane)
          if (m >> lane & 1) all.join(lanes[lane].clock);
        for (std::uint32_t lane = 0; lane < kWarp; ++lane) {
          if (!(m >> lane & 1)) continue;
          lanes[lane].clock.join(all);
          ++lanes[lane].clock.ticks[lanes[lane].linear];
        }
      },
      site);
}

unsigned __ballot_sync(unsigned mask, int predicate, const Site& site) {
  return reduce_lanes("__ballot_sync", mask, predicate ? 1u << lane_of_thread() : 0u, Or{}, site);
}
int __any_sync(unsigned mask, int predicate, const Site& site) {
  return reduce_lanes("__any_sync", mask, predicate ? 1u : 0u, Or{}, site) != 0;
}
int __all_sync(unsigned mask, int predicate, const Site& site) {
  return reduce_lanes("__all_sync", mask, predicate ? 1u : 0u, And{}, site) != 0;
}
