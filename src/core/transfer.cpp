#include "core/transfer.h"

#include <cstring>

namespace nsa {

namespace {

[[noreturn]] void fail_without_cuda() { fail("transfer: this binary was built without CUDA"); }

}  // namespace

void upload_part(Out to, std::size_t begin, const void* from, std::size_t bytes) {
  if (to.where == Where::cuda) fail_without_cuda();
  NSA_CHECK(begin + bytes <= to.bytes(), "upload: bytes [{}, {}) of a tensor of {}", begin, begin + bytes, to.bytes());
  if (bytes) std::memcpy(static_cast<char*>(to.raw_bytes()) + begin, from, bytes);
}

void download_part(void* to, In from, std::size_t begin, std::size_t bytes) {
  if (from.where == Where::cuda) fail_without_cuda();
  NSA_CHECK(begin + bytes <= from.bytes(), "download: bytes [{}, {}) of a tensor of {}", begin, begin + bytes,
            from.bytes());
  if (bytes) std::memcpy(to, static_cast<const char*>(from.raw_bytes()) + begin, bytes);
}

void upload(Out to, const void* from) { upload_part(to, 0, from, to.bytes()); }
void download(void* to, In from) { download_part(to, from, 0, from.bytes()); }

std::vector<float> downloaded_floats(In from) {
  if (from.dtype == DType::f32) return downloaded<float>(from);
  std::vector<float> v;
  v.reserve(static_cast<std::size_t>(from.numel()));
  for (bf16 x : downloaded<bf16>(from)) v.push_back(static_cast<float>(x));
  return v;
}

void synchronise(const Device& dev) {
  if (dev.where == Where::cuda) fail_without_cuda();
}

}  // namespace nsa
