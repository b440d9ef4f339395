// THE crossing between host and device memory: nothing else copies from one to the other (DESIGN law 14).
#pragma once

#include <vector>

#include "core/device.h"
#include "core/tensor.h"

namespace nsa {

/// to = from (host memory, to.bytes() bytes). Ordered after the work that `to`'s device was given before.
void upload(Out to, const void* from);
/// to (host memory, from.bytes() bytes) = from, once the device has done what it was given.
void download(void* to, In from);
/// Bytes [begin, begin + bytes) of a tensor: for files, which go through a small buffer.
void upload_part(Out to, std::size_t begin, const void* from, std::size_t bytes);
void download_part(void* to, In from, std::size_t begin, std::size_t bytes);
/// Waits until the device has done all it was given.
void synchronise(const Device& dev);

/// The elements, on the host; T is the tensor's type.
template <class T>
std::vector<T> downloaded(In from) {
  NSA_CHECK(from.dtype == dtype_of<T>::value, "download: read as {}, stored as {}", name_of(dtype_of<T>::value),
            name_of(from.dtype));
  std::vector<T> v(static_cast<std::size_t>(from.numel()));
  download(v.data(), from);
  return v;
}

/// The elements of an f32 or bf16 tensor as floats, on the host.
std::vector<float> downloaded_floats(In from);

}  // namespace nsa
