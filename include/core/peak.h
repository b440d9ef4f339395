// What this machine can do at most, measured now: speeds are stated as shares of these numbers, because machines differ
// and neighbours come and go.
#pragma once

#include <cstddef>

namespace nsa {

struct Peak {
  int threads = 0;
  double gflops = 0;    ///< fp32 fused multiply-adds on all threads, 2 FLOPs each
  double gbytes_s = 0;  ///< triad a = b + s * c over arrays that fit no cache, 3 * 4 bytes an element
};

/// Sum over the threads of each one's best short run, all running at once; about 50 ms.
double measure_fma_gflops(int threads);
/// Memory bandwidth in GB/s; takes 96 MiB and about 50 ms.
double measure_gbytes_s(int threads);
Peak measure_peak(int threads);

}  // namespace nsa
