// Threads. Work is cut into pieces whose number does not depend on the number of threads; pieces are handed out
// dynamically. A reduction over pieces is done afterwards, in index order. So no result depends on the number of
// threads (DESIGN law 11).
#pragma once

#include <omp.h>

#include <atomic>
#include <cstdint>

namespace nsa {

/// f(i, thread) for i in [0, n), `thread` in [0, threads). f must not throw.
template <class F>
void parallel_for(int threads, std::int64_t n, F&& f) {
  if (threads <= 1 || n <= 1) {
    for (std::int64_t i = 0; i < n; ++i) f(i, 0);
    return;
  }
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads)
  for (std::int64_t i = 0; i < n; ++i) f(i, omp_get_thread_num());
}

/// Cuts [0, n) into pieces of `grain` (the last may be shorter): f(begin, end, thread).
template <class F>
void parallel_ranges(int threads, std::int64_t n, std::int64_t grain, F&& f) {
  parallel_for(threads, (n + grain - 1) / grain, [&](std::int64_t i, int thread) {
    const std::int64_t begin = i * grain, end = begin + grain < n ? begin + grain : n;
    f(begin, end, thread);
  });
}

/// f(i, thread) as in parallel_for, but i is only begun when all before it have been: f may wait_for what a smaller i
/// does.
template <class F>
void parallel_in_order(int threads, std::int64_t n, F&& f) {
  std::atomic<std::int64_t> next = 0;
  parallel_for(threads, threads, [&](std::int64_t, int thread) {
    for (std::int64_t i = next++; i < n; i = next++) f(i, thread);
  });
}

/// Waits until the counter has the value; what was written before pass_turn() set it can then be read. Spins a little,
/// then lets others run: the thread that is waited for may have lost its core.
void wait_for(std::int32_t& counter, std::int32_t value);
/// counter = value, for those who wait for it.
void pass_turn(std::int32_t& counter, std::int32_t value);

/// A spinning thread burns the core a neighbour needs: makes OpenMP threads spin a bounded time only. The OpenMP
/// run-time reads its environment before main(), so this sets it and re-executes the program once; a setting of the
/// user's own is left alone.
void bound_thread_spin(char** argv);

}  // namespace nsa
