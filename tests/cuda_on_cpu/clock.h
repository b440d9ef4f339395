// A vector clock: for every thread and asynchronous agent how much of its work is known to lie before this moment.
#pragma once

#include <algorithm>
#include <cstdint>
#include <map>
#include <memory>
#include <vector>

namespace cuda_on_cpu {

struct Clock {
  using Ticks = std::vector<std::uint32_t>;
  Ticks ticks;  ///< of the agents of the block it belongs to: threads first
  /// Of other blocks, by serial: learnt through counters in global memory.
  std::map<std::uint32_t, std::shared_ptr<const Ticks>> others;

  std::uint32_t of(std::uint32_t agent) const { return agent < ticks.size() ? ticks[agent] : 0; }
  void set(std::uint32_t agent, std::uint32_t tick) {
    if (agent >= ticks.size()) ticks.resize(agent + 1);
    ticks[agent] = std::max(ticks[agent], tick);
  }
  void join(const Clock& other) {
    join(ticks, other.ticks);
    for (const auto& [serial, known] : other.others) learn(serial, known);
  }
  void learn(std::uint32_t serial, const std::shared_ptr<const Ticks>& known) {
    std::shared_ptr<const Ticks>& mine = others[serial];
    if (!mine) {
      mine = known;
    } else if (mine != known) {
      Ticks both = *mine;
      join(both, *known);
      mine = std::make_shared<const Ticks>(std::move(both));
    }
  }
  void clear() { ticks.clear(), others.clear(); }

 private:
  static void join(Ticks& to, const Ticks& from) {
    if (to.size() < from.size()) to.resize(from.size());
    for (std::size_t i = 0; i < from.size(); ++i) to[i] = std::max(to[i], from[i]);
  }
};

}  // namespace cuda_on_cpu
