// Whose memory. Host and device memory meet in core/transfer.h alone (DESIGN law 14).
#pragma once

#include <cstdint>

namespace nsa {

enum class Where : std::uint8_t {
  cpu,
  cuda,
  fake,  ///< CPU memory that host code may not touch: only cpu:: kernels and core/transfer.h. What works there crosses
         ///< nowhere else, which is what a GPU will ask for
};

constexpr const char* name_of(Where where) {
  return where == Where::cpu ? "the CPU" : where == Where::cuda ? "the GPU" : "the fake device";
}

/// An address on the fake device, which no machine instruction can follow (it is not canonical): also host code that
/// goes around Tensor::as() is found, by a fault. reveal() is its inverse.
inline void* hide(void* p) {
  return p ? reinterpret_cast<void*>(reinterpret_cast<std::uintptr_t>(p) ^ (std::uintptr_t{1} << 62)) : nullptr;
}
inline void* reveal(void* p) { return hide(p); }

}  // namespace nsa
