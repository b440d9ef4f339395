#include "core/parallel.h"

#include <unistd.h>

#include <cstdlib>
#include <thread>

namespace nsa {

void wait_for(std::int32_t& counter, std::int32_t value) {
  const std::atomic_ref<std::int32_t> seen(counter);
  for (int spins = 0; seen.load(std::memory_order_acquire) != value; ++spins)
    if (spins > 200) std::this_thread::yield();
}

void pass_turn(std::int32_t& counter, std::int32_t value) {
  std::atomic_ref<std::int32_t>(counter).store(value, std::memory_order_release);
}

void bound_thread_spin(char** argv) {
  if (std::getenv("OMP_WAIT_POLICY") || std::getenv("GOMP_SPINCOUNT") || std::getenv("KMP_BLOCKTIME")) return;
  setenv("GOMP_SPINCOUNT", "1000",
         1);  // libgomp: some microseconds; alone as fast as 20000, beside a busy core 2.5 times slower instead of 6
  setenv("KMP_BLOCKTIME", "1", 1);  // libomp: milliseconds
  execv("/proc/self/exe", argv);    // on failure the program simply goes on with the default
}

}  // namespace nsa
