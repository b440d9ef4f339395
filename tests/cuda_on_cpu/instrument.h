// Are memory accesses of compiled kernels seen? (instrument.cpp)
#pragma once

namespace cuda_on_cpu {
/// True when this program holds kernels compiled with -fsanitize=thread.
bool instrumented();
}  // namespace cuda_on_cpu
