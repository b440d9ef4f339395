#include "device_memory.h"

#include "cuda/runtime.cuh"

namespace nsa::test {

bool emulated() { return cuda::kEmulated; }

void* device_allocate(std::size_t bytes) {
  void* memory = nullptr;
  cuda::check(cudaMalloc(&memory, bytes), "cudaMalloc");
  return memory;
}
void device_release(void* memory) { cudaFree(memory); }
void device_upload(void* to, const void* from, std::size_t bytes) {
  cuda::check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, nullptr), "cudaMemcpy");
  cuda::check(cudaStreamSynchronize(nullptr), "cudaMemcpy");
}
void device_download(void* to, const void* from, std::size_t bytes) {
  cuda::check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, nullptr), "cudaMemcpy");
  cuda::check(cudaStreamSynchronize(nullptr), "a kernel before cudaMemcpy");
}

}  // namespace nsa::test
