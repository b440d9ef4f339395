#include "core/device.h"

#include <sched.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <vector>

#include "core/cgroup.h"

namespace nsa {

namespace {

// A cpu_set_t holds 1024 CPUs; the kernel refuses a mask shorter than its own with EINVAL.
int cores_in_mask() {
  for (std::size_t sets = 1; sets <= 1024; sets *= 2) {
    std::vector<cpu_set_t> mask(sets);
    const std::size_t bytes = sets * sizeof(cpu_set_t);
    if (sched_getaffinity(0, bytes, mask.data()) == 0) return CPU_COUNT_S(bytes, mask.data());
    if (errno != EINVAL) break;
  }
  return 1;
}

}  // namespace

int available_cores() {
  const int cores = cores_in_mask();
  const double quota = cpu_quota(cgroup_folders());
  return std::max(1, quota > 0 ? std::min(cores, static_cast<int>(std::lround(quota))) : cores);
}

void Device::reserve(std::size_t params_bytes, std::size_t work_bytes) {
  check_available(where, params_bytes + work_bytes);  // each alone may fit where both do not
  params.reserve(params_bytes, where);
  work.reserve(work_bytes, where);
}

}  // namespace nsa
