// Queries and compressed keys with what the kernels choose from them, for tests of the selection and of looks at it.
#pragma once

#include <vector>

#include "branch_case.h"

namespace nsa::test {

struct SelectionCase {
  TestDevice dev;
  ref::NsaSizes z;
  Tensor q, kc, lse, selected;

  SelectionCase(const Kind& kind, const ref::NsaSizes& sizes, int threads = 1, double query_scale = 1)
      : dev(kind, threads), z(sizes) {
    q = random(dev, {z.B, z.T, z.H, z.Dk}, "q", query_scale, 0, kind.type);
    kc = random(dev, {z.B, z.Tc(), z.Hkv, z.Dk}, "kc", kind.type);
  }
  /// Attends to the compressed keys, then selects; p (B,T,H,Tc) of the reference.
  std::vector<double> run() {
    const Tensor vc = random(dev, {z.B, z.Tc(), z.Hkv, z.Dv}, "vc", q.dtype);
    const BranchForward y(dev, z, q.dtype);
    op::attend_compressed_forward(dev, y.o, y.lse, q, kc, vc, z.geometry);
    lse = y.lse;
    selected = make(dev, {z.B, z.Hkv, z.T, z.geometry.n}, DType::i32);
    op::select_blocks(dev, selected, q, kc, lse, z.geometry);
    return ref::attend_compressed_forward(z, values(q), values(kc), values(vc)).p;
  }
};

}  // namespace nsa::test
