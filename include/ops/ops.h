// What model code calls: op::NAME(device, outputs, saved, inputs, scalars). Shapes are checked here, once (law 4);
// backends do not check again.
#pragma once

#include "core/device.h"
#include "core/tensor.h"
#include "ops/types.h"

namespace nsa::op {
#include "ops/ops.inc"
}
namespace nsa::cpu {
#include "ops/ops.inc"
}
namespace nsa::cuda {
#include "ops/ops.inc"
}
