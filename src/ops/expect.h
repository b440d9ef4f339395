// What an op expects of its arguments, said in one vocabulary by both fronts (ops.cpp, nsa.cpp): shapes and types are
// looked at there, once, and nowhere below (DESIGN law 4).
#pragma once

#include "core/check.h"
#include "core/tensor.h"

namespace nsa::op {

/// Compares tensors with what one op expects. `mistake`, the likely one, ends every sentence about a shape. The type of
/// the computation, f32 or bf16, is that of the op's first operand; what is said to be of no other type must have it.
struct Expect {
  const char* op;
  const char* mistake;
  DType computed;

  Expect(const char* op_, const char* mistake_, In first, const char* name)
      : op(op_), mistake(mistake_), computed(first.dtype) {
    NSA_CHECK(computed != DType::i32, "{}: {} holds i32, expected f32 or bf16; an argument in another's place?", op,
              name);
  }

  void shape(In t, const char* name, const char* letters, const Shape& want) const {
    NSA_CHECK(t, "{}: {} is absent, expected {} = {}; {}", op, name, letters, want.str(), mistake);
    NSA_CHECK(t.shape == want, "{}: {} is {}, expected {} = {}; {}", op, name, t.shape.str(), letters, want.str(),
              mistake);
  }
  void type(In t, const char* name, DType want) const {
    NSA_CHECK(t.dtype == want, "{}: {} holds {}, expected {}; an argument in another's place?", op, name,
              name_of(t.dtype), name_of(want));
  }
  void dims(In t, const char* name, const char* letters, const Shape& want) const {
    dims(t, name, letters, want, computed);
  }
  void dims(In t, const char* name, const char* letters, const Shape& want, DType want_type) const {
    shape(t, name, letters, want);
    type(t, name, want_type);
  }
  void rank(In t, const char* name, const char* letters, int rank) const {
    NSA_CHECK(t.shape.rank() == rank, "{}: {} is {}, expected {} dims {}; {}", op, name, t.shape.str(), rank, letters,
              mistake);
  }
  /// t as rows of its last dim.
  Tensor rows(In t, const char* name, const char* letters) const {
    NSA_CHECK(t && t.dim(t.shape.rank() - 1) > 0, "{}: {} is {}, expected {} with a last dim of at least 1; {}", op,
              name, t.shape.str(), letters, mistake);
    type(t, name, computed);
    const std::int64_t C = t.dim(t.shape.rank() - 1);
    return t.view({t.numel() / C, C});
  }
  Tensor rows(In t, const char* name, const char* letters, const Shape& want) const {
    const Tensor r = rows(t, name, letters);
    NSA_CHECK(r.shape == want, "{}: {} is {}, expected {} = {} (leading dims multiplied); {}", op, name, t.shape.str(),
              letters, want.str(), mistake);
    return r;
  }
  /// t as one value per row.
  Tensor per_row(In t, const char* name, std::int64_t N, DType want_type) const {
    NSA_CHECK(t && t.numel() == N, "{}: {} is {}, expected one element for each of the N = {} rows; {}", op, name,
              t.shape.str(), N, mistake);
    type(t, name, want_type);
    return t.view({N});
  }
  void same_shape(In t, const char* name, In other, const char* other_name) const {
    NSA_CHECK(t.shape == other.shape, "{}: {} is {}, expected the dims of {}, {}; {}", op, name, t.shape.str(),
              other_name, other.shape.str(), mistake);
  }
  void same(In t, const char* name, In other, const char* other_name) const {
    same_shape(t, name, other, other_name);
    NSA_CHECK(t.dtype == other.dtype, "{}: {} holds {}, {} holds {}; both must be of one type", op, name,
              name_of(t.dtype), other_name, name_of(other.dtype));
  }
};

inline constexpr const char* kHeads = "q (B,T,H,Dk), k (B,T,Hkv,Dk), v (B,T,Hkv,Dv); dims in another order?";

}  // namespace nsa::op
