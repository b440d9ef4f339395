#include "core/device.h"

#include <sched.h>

#include <algorithm>
#include <fstream>
#include <string>

namespace nsa {

int available_cores() {
  cpu_set_t set;
  int cores = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
  std::ifstream quota(
      "/sys/fs/cgroup/cpu.max");  // "max 100000" or "200000 100000": microseconds per period (cgroup v2)
  std::string limit;
  double period = 0;
  if (quota >> limit >> period && limit != "max" && period > 0)
    cores = std::min(cores, std::max(1, static_cast<int>(std::stod(limit) / period + 0.5)));
  return std::max(1, cores);
}

}  // namespace nsa
