// Element types. A kernel accumulates in float whatever it stores (DESIGN law 8).
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>

namespace nsa {

enum class DType : std::uint8_t { f32, bf16, i32 };

constexpr std::size_t bytes_of(DType type) { return type == DType::bf16 ? 2 : 4; }
constexpr const char* name_of(DType type) { return type == DType::f32 ? "f32" : type == DType::bf16 ? "bf16" : "i32"; }

/// The upper half of a float: 8 bits of exponent, 7 of fraction. Rounded to nearest, ties to even; a NaN stays one.
struct bf16 {
  std::uint16_t bits = 0;

  bf16() = default;
  explicit constexpr bf16(float x) : bits(rounded(std::bit_cast<std::uint32_t>(x))) {}
  explicit constexpr operator float() const { return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16); }

 private:
  static constexpr std::uint16_t rounded(std::uint32_t u) {
    if ((u & 0x7fffffffu) > 0x7f800000u)
      return static_cast<std::uint16_t>(u >> 16 | 0x40);  // carrying could end in inf
    return static_cast<std::uint16_t>((u + 0x7fffu + (u >> 16 & 1)) >> 16);
  }
};

template <class T>
struct dtype_of;
template <>
struct dtype_of<float> {
  static constexpr DType value = DType::f32;
};
template <>
struct dtype_of<bf16> {
  static constexpr DType value = DType::bf16;
};
template <>
struct dtype_of<std::int32_t> {
  static constexpr DType value = DType::i32;
};

/// f<T>() with T = float or bf16: the one switch over element types, at a kernel's launch (DESIGN law 8).
///     dispatch_type(x.dtype, [&]<class T>() { launch(x.raw<T>()); });
template <class F>
decltype(auto) dispatch_type(DType type, F&& f) {
  return type == DType::bf16 ? f.template operator()<bf16>() : f.template operator()<float>();
}

}  // namespace nsa
