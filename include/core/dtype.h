// Element types. A kernel accumulates in float whatever it stores (DESIGN law 8).
#pragma once

#include <cstddef>
#include <cstdint>

namespace nsa {

enum class DType : std::uint8_t { f32, bf16, i32 };

constexpr std::size_t bytes_of(DType type) { return type == DType::bf16 ? 2 : 4; }
constexpr const char* name_of(DType type) { return type == DType::f32 ? "f32" : type == DType::bf16 ? "bf16" : "i32"; }

template <class T>
struct dtype_of;
template <>
struct dtype_of<float> {
  static constexpr DType value = DType::f32;
};
template <>
struct dtype_of<std::int32_t> {
  static constexpr DType value = DType::i32;
};

}  // namespace nsa
