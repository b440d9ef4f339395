// Device memory for tests, whichever side the kernels are on: a GPU, or the CPU that plays one.
#pragma once

#include <cstddef>
#include <vector>

namespace nsa::test {

/// Is the device the emulated one?
bool emulated();

void* device_allocate(std::size_t bytes);
void device_release(void* memory);
void device_upload(void* to, const void* from, std::size_t bytes);
/// Waits for the device, then copies; throws what a kernel did wrong.
void device_download(void* to, const void* from, std::size_t bytes);

/// n elements, 0xFF in every byte.
template <class T>
class DeviceArray {
 public:
  explicit DeviceArray(std::size_t n) : n_(n), data_(static_cast<T*>(device_allocate(n * sizeof(T)))) {
    const std::vector<unsigned char> fill(n * sizeof(T), 0xFF);
    device_upload(data_, fill.data(), fill.size());
  }
  DeviceArray(const std::vector<T>& v) : DeviceArray(v.size()) {  // NOLINT: a vector where a kernel wants memory
    device_upload(data_, v.data(), n_ * sizeof(T));
  }
  ~DeviceArray() { device_release(data_); }
  DeviceArray(const DeviceArray&) = delete;
  DeviceArray& operator=(const DeviceArray&) = delete;

  operator T*() const { return data_; }  // NOLINT
  std::vector<T> host() const {
    std::vector<T> v(n_);
    device_download(v.data(), data_, n_ * sizeof(T));
    return v;
  }

 private:
  std::size_t n_;
  T* data_;
};

}  // namespace nsa::test
