// In which of the orders that a GPU may choose the threads run, and when asynchronous work happens.
#pragma once

#include <cstdint>
#include <string>

namespace cuda_on_cpu {

enum class Order : std::uint8_t {
  forward,   ///< the lowest thread that can run
  backward,  ///< the highest
  uniform,   ///< any: lanes drift apart
  priority,  ///< one warp far ahead of the others. Uniform order misses what this finds: a long lead is unlikely there
};

/// cp.async, TMA and wgmma: all of these are legal.
enum class Async : std::uint8_t {
  late,   ///< at the wait, or when nothing else can run: finds a missing wait
  early,  ///< when issued: finds a missing barrier before a buffer is filled again
  any,    ///< some time in between, in any order
};

struct Schedule {
  Order order = Order::forward;
  Async async = Async::late;
  std::uint64_t seed = 0;
  int resident = 1;        ///< blocks that run at once; more only when all of these wait for another one
  bool find_races = true;  ///< where kernels were compiled for it (instrument.cpp)
  std::string describe() const;
};

/// Seed 0: forward, late. 1: backward, early. Others: every combination, with several blocks at once.
Schedule schedule_of(std::uint64_t seed);

/// The schedule of the launches to come.
Schedule& schedule();

}  // namespace cuda_on_cpu
