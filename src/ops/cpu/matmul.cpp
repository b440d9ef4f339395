// The three products of a linear layer; weights are [out, in].
#include "ops/cpu/onednn_gemm.h"
#include "ops/ops.h"

namespace nsa::cpu {

void matmul_forward(Device& dev, Out y, In x, In w, Write mode) {
  gemm(dev, {GemmForm::nt, x.dim(0), w.dim(0), w.dim(1)}, x, w, y, mode);
}

void matmul_backward_input(Device& dev, Out dx, In dy, In w, Write mode) {
  gemm(dev, {GemmForm::nn, dy.dim(0), w.dim(1), w.dim(0)}, dy, w, dx, mode);
}

void matmul_backward_weight(Device& dev, InOut dw, In dy, In x) {
  gemm(dev, {GemmForm::tn, dw.dim(0), dw.dim(1), x.dim(0)}, dy, x, dw, Write::add);
}

}  // namespace nsa::cpu
