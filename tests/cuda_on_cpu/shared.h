// A block's shared memory: arrays with red zones between them, filled with NaNs, in a span of 256 KB whose first
// kilobyte is the system's, as on sm_90.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cuda_on_cpu/fault.h"

namespace cuda_on_cpu {

constexpr std::size_t kSharedLimit = 232448, kStaticSharedLimit = 49152, kSharedSpan = std::size_t{256} << 10;

struct Block;
void reset_shared(Block& block);
bool in_shared(const void* p);
/// The 32-bit address that instructions take; a pointer elsewhere is a Fault naming `what`.
std::uint32_t shared_address(const void* p, const char* what = "shared_address");
unsigned char* shared_pointer(std::uint32_t address);

/// Dynamic array number `index` of the running block; every thread must ask for the same ones.
void* dynamic_array(std::size_t index, std::size_t bytes, std::size_t alignment);
/// Bytes of dynamic shared memory that arrays 0 .. index take on a GPU.
void check_dynamic(std::size_t used);
void* static_array(const void* key, std::size_t bytes, std::size_t alignment);

}  // namespace cuda_on_cpu

namespace nsa::cuda {

inline std::uint32_t shared_address(const void* p) { return cuda_on_cpu::shared_address(p); }

class SharedMemory {
 public:
  template <class T>
  T* take(std::size_t n, std::size_t alignment = 16) {
    used_ = (used_ + alignment - 1) / alignment * alignment + n * sizeof(T);
    cuda_on_cpu::check_dynamic(used_);
    return static_cast<T*>(cuda_on_cpu::dynamic_array(next_++, n * sizeof(T), alignment));
  }

 private:
  std::size_t next_ = 0, used_ = 0;
};

}  // namespace nsa::cuda

#define NSA_SHARED(T, name, dims) \
  static char name##_key;         \
  using name##_type = T dims;     \
  auto& name = *static_cast<name##_type*>(::cuda_on_cpu::static_array(&name##_key, sizeof(name##_type), 16))
