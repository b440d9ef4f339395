// Sums over rows, column by column: fixed chunks of rows, each summed by a thread that owns W neighbouring columns, and
// the chunks' sums added in order by a second kernel. The chunks depend on N alone, so do the bits.
#pragma once

#include "cuda/launch.cuh"
#include "cuda/vector.cuh"

namespace nsa::cuda {

constexpr int kColumnThreads = 128;
constexpr std::int64_t kMostChunks = 256;

inline std::int64_t rows_of_chunk(std::int64_t N) {
  const std::int64_t even = (N + kMostChunks - 1) / kMostChunks;
  return even < 16 ? 16 : even;
}
inline std::int64_t chunks_of_rows(std::int64_t N) { return (N + rows_of_chunk(N) - 1) / rows_of_chunk(N); }

/// partial (chunks, C): block (x, y) sums chunk y of columns x * kColumnThreads * W .. ; Sum is float or double.
template <class Sum, int W, class Term>
__global__ void __launch_bounds__(kColumnThreads)
    chunk_sums_kernel(Sum* partial, Term term, std::int64_t N, std::int64_t C, std::int64_t rows) {
  const std::int64_t c = (std::int64_t{blockIdx.x} * kColumnThreads + threadIdx.x) * W;
  if (c >= C) return;
  const std::int64_t begin = blockIdx.y * rows, end = begin + rows < N ? begin + rows : N;
  Sum sum[W] = {};
  for (std::int64_t n = begin; n < end; ++n) term.add(sum, n, c);
  for (int i = 0; i < W; ++i) partial[blockIdx.y * C + c + i] = sum[i];
}

/// to [+]= sum of the chunks
template <class Sum, bool kAdd>
__global__ void __launch_bounds__(kColumnThreads)
    add_chunks_kernel(float* to, const Sum* partial, std::int64_t chunks, std::int64_t C) {
  const std::int64_t c = std::int64_t{blockIdx.x} * kColumnThreads + threadIdx.x;
  if (c >= C) return;
  Sum sum = 0;
  for (std::int64_t i = 0; i < chunks; ++i) sum += partial[i * C + c];
  to[c] = kAdd ? to[c] + static_cast<float>(sum) : static_cast<float>(sum);
}

template <class Sum, bool kAdd, int W, class Term>
void sum_columns(const char* name, float* to, Sum* partial, std::int64_t N, std::int64_t C, const Term& term) {
  const auto blocks = [C](int width) {
    return static_cast<unsigned>((C + kColumnThreads * width - 1) / (kColumnThreads * width));
  };
  const std::int64_t chunks = chunks_of_rows(N);
  launch(name, chunk_sums_kernel<Sum, W, Term>, dim3(blocks(W), static_cast<unsigned>(chunks)), kColumnThreads, 0,
         nullptr, partial, term, N, C, rows_of_chunk(N));
  launch(name, add_chunks_kernel<Sum, kAdd>, blocks(1), kColumnThreads, 0, nullptr, to, partial, chunks, C);
}

/// to (C) += sum over n of term.add(sum, n, c), in float; partial (chunks_of_rows(N), C).
template <class T, class Term>
void add_columns(const char* name, float* to, float* partial, std::int64_t N, std::int64_t C, bool packs,
                 const Term& term) {
  if (packs)
    sum_columns<float, true, Pack<T>::kSize>(name, to, partial, N, C, term);
  else
    sum_columns<float, true, 1>(name, to, partial, N, C, term);
}

}  // namespace nsa::cuda
