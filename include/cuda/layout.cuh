// How matrices lie in shared memory for TMA and wgmma, and what TMA refuses: formulas, on the host and the device. The
// emulator uses the same ones; tests/golden/silicon/h100.safetensors holds what an H100 does.
#pragma once

#include <cstddef>
#include <cstdint>

#if defined(__CUDACC__)
#define NSA_LAYOUT __host__ __device__ constexpr
#else
#define NSA_LAYOUT constexpr
#endif

namespace nsa::cuda {

/// Swizzle width in bytes: 16 = none, 32, 64, 128. Bits 4.. of an address are changed by its bits 7.. .
/// Trap: on the ABSOLUTE address, so the pattern repeats every 8 * width bytes. Tiles start at multiples of that.
NSA_LAYOUT std::uint32_t swizzled(std::uint32_t address, std::uint32_t width) {
  return address ^ (address >> 3 & (width - 16));
}

/// Bytes from a tile's start to `byte` of row `row`. A tile is `rows` rows of contiguous data, cut into panels `width`
/// bytes wide, panel after panel: one TMA box {width, rows} writes one panel.
///   K-major operand: a row is one m (or n), contiguous in k;  MN-major: a row is one k, contiguous in m (or n).
NSA_LAYOUT std::uint32_t tile_offset(std::uint32_t width, std::uint32_t rows, std::uint32_t row, std::uint32_t byte) {
  return swizzled(byte / width * rows * width + row * width + byte % width, width);
}

/// Strides of a wgmma operand in a tile as above, in bytes.
struct OperandStrides {
  std::uint32_t leading, stride;
};
/// Trap: without a swizzle the two change their roles between K-major and MN-major.
NSA_LAYOUT OperandStrides operand_strides(bool mn_major, std::uint32_t width, std::uint32_t rows) {
  if (mn_major) return width == 16 ? OperandStrides{128, rows * 16} : OperandStrides{rows * width, 8 * width};
  return width == 16 ? OperandStrides{rows * 16, 128} : OperandStrides{16, 8 * width};
}

/// What wgmma is told about an operand. Advancing in k adds k_offset() >> 4: the hardware adds to the plain start and
/// swizzles afterwards, so inside a panel that is right although the data is swizzled.
NSA_LAYOUT std::uint64_t matrix_descriptor(std::uint32_t address, OperandStrides s, std::uint32_t width) {
  const std::uint64_t mode = width == 128 ? 1 : width == 64 ? 2 : width == 32 ? 3 : 0;
  return (address & 0x3FFFFu) >> 4 | std::uint64_t{(s.leading & 0x3FFFFu) >> 4} << 16 |
         std::uint64_t{(s.stride & 0x3FFFFu) >> 4} << 32 | mode << 62;
}

/// Bytes to the operand's k-step number `step`, of 16 bf16.
NSA_LAYOUT std::uint32_t k_offset(bool mn_major, std::uint32_t width, std::uint32_t rows, std::uint32_t step) {
  if (mn_major) return step * 16 * width;
  return width == 16 ? step * 2 * rows * 16 : step * 32 / width * rows * width + step * 32 % width;
}

// Which element a lane's register holds. h: half of a 32-bit register, 0 = low 16 bits = lower k.
NSA_LAYOUT int a_row(int lane, int reg) { return lane / 4 + 8 * (reg & 1); }  ///< A 16 x 16, 4 registers
NSA_LAYOUT int a_col(int lane, int reg, int h) { return lane % 4 * 2 + h + 8 * (reg >> 1); }
NSA_LAYOUT int b_row(int lane, int reg, int h) { return lane % 4 * 2 + h + 8 * reg; }  ///< B 16 x 8; column lane / 4
NSA_LAYOUT int c_row(int lane, int reg) { return lane / 4 + 8 * (reg >> 1 & 1); }      ///< C 16 x N; wgmma: + 16 * warp
NSA_LAYOUT int c_col(int lane, int reg) { return (reg >> 2) * 8 + lane % 4 * 2 + (reg & 1); }

enum class TensorType : std::uint8_t { f32, bf16 };
constexpr std::uint32_t bytes_of(TensorType type) { return type == TensorType::bf16 ? 2 : 4; }

/// An array in device memory as TMA sees it. Innermost dimension first; pitch[i] is the byte stride of dimension i + 1.
struct TensorShape {
  TensorType type = TensorType::bf16;
  int rank = 2;
  void* base = nullptr;
  std::uint64_t dims[5] = {}, pitch[4] = {};
  std::uint32_t box[5] = {};
  std::uint32_t swizzle = 128;  ///< in bytes; 16: none. A box narrower than this keeps a row pitch of `swizzle`
  bool nan_fill = false;        ///< what lies outside reads as NaN instead of 0
};

/// Why cuTensorMapEncodeTiled refuses a shape; null when it does not.
inline const char* why_refused(const TensorShape& s) {
  if (s.rank < 1 || s.rank > 5) return "the rank is not 1 to 5";
  if (reinterpret_cast<std::uintptr_t>(s.base) % 16) return "the array starts at no multiple of 16 bytes";
  for (int i = 0; i < s.rank; ++i) {
    if (s.dims[i] < 1 || s.dims[i] > std::uint64_t{1} << 32) return "a dimension is not 1 to 2^32";
    if (s.box[i] < 1 || s.box[i] > 256) return "a box dimension is not 1 to 256";
    if (i + 1 < s.rank && (s.pitch[i] % 16 || s.pitch[i] >= std::uint64_t{1} << 40))
      return "a pitch is no multiple of 16 bytes";
  }
  if (s.box[0] * bytes_of(s.type) % 16) return "a row of the box is no multiple of 16 bytes";
  if (s.swizzle > 16 && s.box[0] * bytes_of(s.type) > s.swizzle) return "a row of the box is wider than the swizzle";
  return nullptr;
}

/// Why a TMA instruction faults; null when it does not. `first` is the innermost coordinate, `smem` the box's address.
/// Trap: the innermost coordinate must be a multiple of 16 bytes, negative or out of bounds or not; others are free. A
/// store may not start at a negative one at all, and writes whole 16-byte chunks at a ragged end.
constexpr const char* why_faults(const TensorShape& s, const int* coordinates, std::uint32_t smem, bool store) {
  if (std::int64_t{coordinates[0]} * bytes_of(s.type) % 16)
    return "the innermost coordinate is no multiple of 16 bytes";
  if (smem % 128) return "the shared address is no multiple of 128";
  for (int i = 0; store && i < s.rank; ++i)
    if (coordinates[i] < 0) return "a store starts at a negative coordinate";
  return nullptr;
}

}  // namespace nsa::cuda
