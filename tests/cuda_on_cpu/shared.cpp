#include "cuda_on_cpu/shared.h"

#include <cstdlib>
#include <cstring>
#include <new>

#include "cuda_on_cpu/asan.h"
#include "cuda_on_cpu/machine.h"
#include "cuda_on_cpu/race.h"

namespace cuda_on_cpu {

namespace {

constexpr std::uint32_t kSystem = 1024, kRedZone = 128;

std::size_t up(std::size_t x, std::size_t multiple) { return (x + multiple - 1) / multiple * multiple; }

SharedArray new_array(std::size_t bytes, std::size_t alignment, const void* key) {
  Block& block = here();
  const auto offset = static_cast<std::uint32_t>(up(block.shared_end, alignment));
  if (offset + bytes + kRedZone > kSharedSpan)
    fault("{} arrays of shared memory and their red zones do not fit into {} bytes", block.arrays.size() + 1,
          kSharedSpan);
  block.shared_end = static_cast<std::uint32_t>(offset + bytes + kRedZone);
  ASAN_UNPOISON_MEMORY_REGION(block.shared + offset, bytes);
  std::memset(block.shared + offset, 0xFF, bytes);  // NaNs
  race::own_shared(block, offset, bytes);
  block.arrays.push_back({offset, bytes, key});
  return block.arrays.back();
}

}  // namespace

void reset_shared(Block& block) {
  if (!block.shared) {
    block.shared = static_cast<unsigned char*>(std::aligned_alloc(kSharedSpan, kSharedSpan));
    if (!block.shared) throw std::bad_alloc();
  }
  ASAN_POISON_MEMORY_REGION(block.shared, kSharedSpan);
  block.shared_end = kSystem;
  block.shared_static = 0;
  block.arrays.clear();
}

bool in_shared(const void* p) {
  const auto* at = static_cast<const unsigned char*>(p);
  return at >= here().shared && at < here().shared + kSharedSpan;
}

std::uint32_t shared_address(const void* p, const char* what) {
  if (!in_shared(p)) fault("{}: {} is not in this block's shared memory", what, p);
  return static_cast<std::uint32_t>(static_cast<const unsigned char*>(p) - here().shared);
}

unsigned char* shared_pointer(std::uint32_t address) { return here().shared + address % kSharedSpan; }

void check_dynamic(std::size_t used) {
  if (used > machine.dynamic_shared)
    fault("shared memory: {} bytes taken, the launch gave {}", used, machine.dynamic_shared);
}

void* dynamic_array(std::size_t index, std::size_t bytes, std::size_t alignment) {
  std::size_t seen = 0;
  for (const SharedArray& array : here().arrays) {
    if (array.key || seen++ != index) continue;
    if (array.bytes != bytes || array.offset % alignment)
      fault("shared memory: array {} has {} bytes here, {} in another thread", index, bytes, array.bytes);
    return here().shared + array.offset;
  }
  return here().shared + new_array(bytes, alignment, nullptr).offset;
}

void* static_array(const void* key, std::size_t bytes, std::size_t alignment) {
  for (const SharedArray& array : here().arrays)
    if (array.key == key) return here().shared + array.offset;
  here().shared_static += up(bytes, alignment);
  if (here().shared_static > kStaticSharedLimit)
    fault("static shared memory: {} bytes, a block has {}", here().shared_static, kStaticSharedLimit);
  if (here().shared_static + machine.dynamic_shared > kSharedLimit)
    fault("shared memory: {} bytes static and {} dynamic, a block has {}", here().shared_static, machine.dynamic_shared,
          kSharedLimit);
  return here().shared + new_array(bytes, alignment, key).offset;
}

}  // namespace cuda_on_cpu
