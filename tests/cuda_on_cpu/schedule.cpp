#include "cuda_on_cpu/schedule.h"

#include <fmt/format.h>

namespace cuda_on_cpu {

Schedule& schedule() {
  static Schedule current;
  return current;
}

Schedule schedule_of(std::uint64_t seed) {
  if (seed == 0) return {};
  if (seed == 1) return {Order::backward, Async::early, 1, 1, true};
  constexpr Order kOrders[] = {Order::priority, Order::uniform, Order::priority, Order::backward, Order::forward};
  constexpr Async kAsync[] = {Async::late, Async::any, Async::early};
  return {kOrders[seed % 5], kAsync[seed % 3], seed, 1 + static_cast<int>(seed % 4), true};
}

std::string Schedule::describe() const {
  constexpr const char* kOrders[] = {"forward", "backward", "uniform", "priority"};
  constexpr const char* kAsync[] = {"late", "early", "any"};
  return fmt::format("seed {} ({}, {})", seed, kOrders[static_cast<int>(order)], kAsync[static_cast<int>(async)]);
}

}  // namespace cuda_on_cpu
