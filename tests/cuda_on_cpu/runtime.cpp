#include "cuda_on_cpu/runtime.h"

#include <chrono>
#include <cstdlib>
#include <cstring>
#include <map>

#include "cuda_on_cpu/asan.h"
#include "cuda_on_cpu/fault.h"
#include "cuda_on_cpu/race.h"

struct CUstream_st {};
struct CUevent_st {
  std::chrono::steady_clock::time_point when;
};

namespace {

constexpr std::size_t kGuard = 256;
std::map<const void*, std::size_t> allocations;  // what cudaMalloc gave, and its bytes

std::size_t with_guards(std::size_t bytes) { return (bytes + kGuard - 1) / kGuard * kGuard + 2 * kGuard; }

/// A copy or memset of `bytes` at `p`: all of it in one allocation, or none of it in any.
void check_range(const char* what, const void* p, std::size_t bytes) {
  const auto* at = static_cast<const char*>(p);
  auto next = allocations.upper_bound(p);
  if (next == allocations.begin()) return;
  const auto [begin, size] = *--next;
  const auto* first = static_cast<const char*>(begin);
  if (at < first + size + kGuard && at + bytes > first + size)
    cuda_on_cpu::fault("{}: {} bytes at +{} of an allocation of {}", what, bytes, at - first, size);
}

}  // namespace

const char* cudaGetErrorString(cudaError_t error) {
  return error == cudaSuccess ? "no error" : error == cudaErrorMemoryAllocation ? "out of memory" : "invalid argument";
}
cudaError_t cudaGetLastError() { return cudaSuccess; }

cudaError_t cudaMalloc(void** memory, std::size_t bytes) {
  const std::size_t whole = with_guards(bytes);
  auto* base = static_cast<char*>(std::aligned_alloc(kGuard, whole));
  if (!base) return cudaErrorMemoryAllocation;
  std::memset(base, 0xFF, whole);
  ASAN_POISON_MEMORY_REGION(base, whole);
  ASAN_UNPOISON_MEMORY_REGION(base + kGuard, bytes);
  *memory = base + kGuard;
  allocations[*memory] = bytes;
  cuda_on_cpu::race::own_device(*memory, bytes, kGuard);
  return cudaSuccess;
}

cudaError_t cudaFree(void* memory) {
  if (!memory) return cudaSuccess;
  const auto found = allocations.find(memory);
  if (found == allocations.end()) return cudaErrorInvalidValue;
  cuda_on_cpu::race::disown_device(memory);
  char* base = static_cast<char*>(memory) - kGuard;
  ASAN_UNPOISON_MEMORY_REGION(base, with_guards(found->second));
  allocations.erase(found);
  std::free(base);
  return cudaSuccess;
}

cudaError_t cudaMallocHost(void** memory, std::size_t bytes) {
  *memory = std::malloc(bytes ? bytes : 1);
  return *memory ? cudaSuccess : cudaErrorMemoryAllocation;
}
cudaError_t cudaFreeHost(void* memory) {
  std::free(memory);
  return cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes, cudaMemcpyKind, cudaStream_t) {
  check_range("cudaMemcpy", to, bytes);
  check_range("cudaMemcpy", from, bytes);
  if (bytes) std::memcpy(to, from, bytes);
  return cudaSuccess;
}
cudaError_t cudaMemsetAsync(void* to, int value, std::size_t bytes, cudaStream_t) {
  check_range("cudaMemset", to, bytes);
  if (bytes) std::memset(to, value, bytes);
  return cudaSuccess;
}

cudaError_t cudaStreamCreate(cudaStream_t* stream) {
  *stream = new CUstream_st;
  return cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  delete stream;
  return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t) { return cudaSuccess; }
cudaError_t cudaStreamWaitEvent(cudaStream_t, cudaEvent_t, unsigned) { return cudaSuccess; }
cudaError_t cudaDeviceSynchronize() { return cudaSuccess; }

cudaError_t cudaEventCreate(cudaEvent_t* event) {
  *event = new CUevent_st;
  return cudaSuccess;
}
cudaError_t cudaEventDestroy(cudaEvent_t event) {
  delete event;
  return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t) {
  event->when = std::chrono::steady_clock::now();
  return cudaSuccess;
}
cudaError_t cudaEventSynchronize(cudaEvent_t) { return cudaSuccess; }
cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t begin, cudaEvent_t end) {
  *milliseconds = std::chrono::duration<float, std::milli>(end->when - begin->when).count();
  return cudaSuccess;
}
