// The NSA ops, as op:: (checked) and per backend. See nsa.inc for shapes and nsa.h for the equations.
#pragma once

#include "core/device.h"
#include "core/tensor.h"
#include "nsa/nsa.h"

namespace nsa {

/// How a block becomes one key or value (NSA.md step 4). Same order as the config's spellings.
enum class Compressor : int { mlp, linear, mean };

/// Weights (or their gradients) of one compressor; absent tensors have rank 0.
struct CompressWeights {
  Tensor pos;     ///< (Hkv, l, D)
  Tensor w1, b1;  ///< (Hkv, E, l*D), (Hkv, E)
  Tensor w2, b2;  ///< (Hkv, D, E), (Hkv, D)
};

namespace op {
#include "nsa/nsa.inc"
}
namespace cpu {
#include "nsa/nsa.inc"
}
namespace cuda {
#include "nsa/nsa.inc"
}

}  // namespace nsa
