// A tensor is a view: pointer, type, dims, place. It owns nothing (memory belongs to an Arena), is contiguous and
// row-major, and is passed by const reference: the constness is of the view, not of the elements. `Out`, `InOut`,
// `Saved`, `In` in an op's signature say what happens to those.
#pragma once

#include <array>
#include <cstdint>
#include <initializer_list>
#include <string>

#include "core/check.h"
#include "core/dtype.h"
#include "core/where.h"

namespace nsa {

/// Dims of a tensor, at most 5, outermost first. Sizes are 64-bit everywhere: B*T*H*D passes 2^31 on long contexts.
class Shape {
 public:
  static constexpr int kMaxRank = 5;
  Shape() = default;
  Shape(std::initializer_list<std::int64_t> dims) {
    NSA_CHECK(dims.size() <= kMaxRank, "shape: at most {} dims, got {}", kMaxRank, dims.size());
    for (std::int64_t d : dims) dims_[rank_++] = d;
  }
  int rank() const { return rank_; }
  std::int64_t operator[](int i) const { return dims_[i]; }
  std::int64_t numel() const {
    std::int64_t n = 1;
    for (int i = 0; i < rank_; ++i) n *= dims_[i];
    return n;
  }
  void push_back(std::int64_t d) {
    NSA_CHECK(rank_ < kMaxRank, "shape: at most {} dims", kMaxRank);
    dims_[rank_++] = d;
  }
  bool operator==(const Shape&) const = default;
  /// "(2, 128, 64)"
  std::string str() const {
    std::string s = "(";
    for (int i = 0; i < rank_; ++i) s += (i ? ", " : "") + std::to_string(dims_[i]);
    return s + ")";
  }

 private:
  std::array<std::int64_t, kMaxRank> dims_{};
  int rank_ = 0;
};

struct Tensor {
  void* data = nullptr;  ///< null while planning (Arena without memory) and for an absent optional tensor
  DType dtype = DType::f32;
  Shape shape;
  Where where = Where::cpu;  ///< whose memory `data` points into

  /// False for an optional tensor that is absent (no bias, no norm): it has rank 0.
  explicit operator bool() const { return shape.rank() > 0; }
  std::int64_t dim(int i) const { return shape[i]; }
  std::int64_t numel() const { return shape.rank() ? shape.numel() : 0; }
  std::size_t bytes() const { return static_cast<std::size_t>(numel()) * bytes_of(dtype); }

  /// The elements, for host code. Throws on memory the host cannot read (core/transfer.h brings it here) and on a wrong
  /// T, a programming error.
  template <class T>
  T* as() const {
    NSA_CHECK(where == Where::cpu, "tensor: {} of {} lives on {}: download it first", name_of(dtype), shape.str(),
              name_of(where));
    return raw<T>();
  }
  float* f32() const { return as<float>(); }
  std::int32_t* i32() const { return as<std::int32_t>(); }

  /// The elements as the backend of `where` sees them: for the kernels of a backend and core/transfer.h alone.
  template <class T>
  T* raw() const {
    NSA_CHECK(dtype == dtype_of<T>::value, "tensor: read as {}, stored as {}", name_of(dtype_of<T>::value),
              name_of(dtype));
    return static_cast<T*>(raw_bytes());
  }
  void* raw_bytes() const { return where == Where::fake ? reveal(data) : data; }

  /// The same elements under other dims.
  Tensor view(const Shape& dims) const {
    NSA_CHECK(dims.numel() == numel(), "tensor: view {} of {} changes the number of elements", dims.str(), shape.str());
    return {data, dtype, dims, where};
  }
  /// Rows [begin, end) of the outermost dim.
  Tensor rows(std::int64_t begin, std::int64_t end) const {
    NSA_CHECK(0 <= begin && begin <= end && end <= dim(0), "tensor: rows [{}, {}) of {}", begin, end, shape.str());
    Shape dims{end - begin};
    for (int i = 1; i < shape.rank(); ++i) dims.push_back(shape[i]);
    const std::int64_t row = dim(0) ? numel() / dim(0) : 0;
    return {data ? static_cast<char*>(data) + static_cast<std::size_t>(begin * row) * bytes_of(dtype) : nullptr, dtype,
            dims, where};
  }
};

using In = const Tensor&;     ///< read
using Out = const Tensor&;    ///< every element is written, whatever was there
using InOut = const Tensor&;  ///< read and written
using Saved = const Tensor&;  ///< written by forward, read by backward

/// Does a result replace what the buffer holds or add to it? (law 7: never a naked bool)
enum class Write { overwrite, add };

}  // namespace nsa
