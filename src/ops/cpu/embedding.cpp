// Token embedding. Backward cuts the columns into pieces: every piece walks all rows in order, so repeated tokens need
// neither atomics nor sorting.
#include "core/parallel.h"
#include "ops/cpu/convert.h"
#include "ops/cpu/grain.h"
#include "ops/ops.h"

namespace nsa::cpu {

void embedding_forward(Device& dev, Out y, In tokens, In w) {
  if (dev.planning()) return;
  const std::int64_t N = y.dim(0), C = y.dim(1);
  const std::int32_t* token = tokens.raw<std::int32_t>();
  dispatch_type(w.dtype, [&]<class T>() {
    T* yp = y.raw<T>();
    const T* wp = w.raw<T>();
    parallel_ranges(dev.threads, N, rows_per_piece(C), [&](std::int64_t begin, std::int64_t end, int) {
      for (std::int64_t n = begin; n < end; ++n) convert(yp + n * C, wp + token[n] * C, C);
    });
  });
}

void embedding_backward(Device& dev, InOut dw, In dy, In tokens) {
  if (dev.planning()) return;
  constexpr std::int64_t kColumns = 64;  // whole cache lines of a row
  const std::int64_t N = dy.dim(0), C = dy.dim(1);
  float* dwp = dw.raw<float>();
  const std::int32_t* token = tokens.raw<std::int32_t>();
  dispatch_type(dy.dtype, [&]<class T>() {
    const T* dyp = dy.raw<T>();
    parallel_ranges(dev.threads, C, kColumns, [&](std::int64_t begin, std::int64_t end, int) {
      for (std::int64_t n = 0; n < N; ++n) {
        float* dw_v = dwp + token[n] * C;
        const T* dy_n = dyp + n * C;
        for (std::int64_t c = begin; c < end; ++c) dw_v[c] += static_cast<float>(dy_n[c]);
      }
    });
  });
}

}  // namespace nsa::cpu
