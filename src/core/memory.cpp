#include "core/memory.h"

#include <sys/mman.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <string>

#include "core/cgroup.h"
#include "core/check.h"

namespace nsa {

namespace {

std::string gib(std::size_t bytes) { return fmt::format("{:.2f} GiB", static_cast<double>(bytes) / (1 << 30)); }

constexpr const char* kLess = "a smaller train.micro_batch, data.sequence_length or train.recompute=block needs less";

/// MemAvailable of /proc/meminfo; 0 when there is none.
std::size_t available_on_machine() {
  std::ifstream info("/proc/meminfo");
  std::string key, unit;
  for (std::size_t kib = 0; info >> key >> kib; std::getline(info, unit))
    if (key == "MemAvailable:") return kib << 10;
  return 0;
}

}  // namespace

std::size_t available_memory(Where where) {
  if (where == Where::cuda) return 0;
  const std::size_t machine = available_on_machine();
  const double group = memory_left(cgroup_folders());
  return group > 0 ? std::min(machine, static_cast<std::size_t>(group)) : machine;
}

void check_available(Where where, std::size_t bytes) {
  const std::size_t available = available_memory(where);
  NSA_CHECK(!available || bytes <= available, "memory: {} are needed, {} are available; {}", gib(bytes), gib(available),
            kLess);
}

void* allocate(Where where, std::size_t bytes) {
  NSA_CHECK(where != Where::cuda, "memory: this binary was built without CUDA; use device=cpu");
  check_available(where, bytes);
  void* p = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);  // page-aligned
  NSA_CHECK(p != MAP_FAILED, "memory: {} are needed, the system refused ({}); {}", gib(bytes), std::strerror(errno),
            kLess);
  madvise(p, bytes, MADV_HUGEPAGE);
  if (where == Where::cpu) return p;
  std::memset(p, 0xff, bytes);
  return hide(p);
}

void release(Where where, void* memory, std::size_t bytes) {
  munmap(where == Where::fake ? reveal(memory) : memory, bytes);
}

}  // namespace nsa
