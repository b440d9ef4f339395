// What becomes of a number that a program puts into a tensor between two steps: nothing, in a reference; a plain bf16
// program rounds it. With its outputs rounded too, the float64 formula is then "a plain bf16 evaluation", which kernels
// are measured by (check_close_to_plain in compare.h).
#pragma once

#include "ref/compare.h"

namespace nsa::test {

struct Exact {
  template <class T>
  T operator()(const T& x) const {
    return x;
  }
};
struct ToBf16 {
  double operator()(double x) const { return rounded_to_bf16(x); }
};

}  // namespace nsa::test
