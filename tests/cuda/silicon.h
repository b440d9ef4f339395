// One launch for each recorded case of an H100 (tests/golden/silicon/h100.safetensors): the wrappers of include/cuda,
// run on whichever device the tests are linked with. Pointers are device memory.
#pragma once

#include <cstdint>

#include "cuda/layout.cuh"

namespace nsa::test {

// Registers [lane][register].
void run_mma(const std::uint32_t* a, const std::uint32_t* b, const float* c, float* d);
/// in: 32 rows of 8 b16, row l at lane l's address.
void run_ldmatrix(int matrices, bool transposed, const std::uint16_t* in, std::uint32_t* out);
/// out: 33 rows of 8 b16; row 32 is the target of lanes whose address must be ignored.
void run_stmatrix(int matrices, bool transposed, const std::uint32_t* in, std::uint16_t* out);
void run_movmatrix(const std::uint32_t* in, std::uint32_t* out);

/// out [kind][width][delta][lane]
void run_shuffles(const std::int32_t* widths, int n_widths, const std::int32_t* deltas, int n_deltas,
                  std::uint32_t* out);
/// out [27][lane]
void run_votes(std::uint32_t* out);

/// exp2, log2, rcp, rsqrt of n numbers: y [function][n]
void run_approximations(const float* x, float* y, int n);
/// packed[i]: x[i] low, x[i + 1] high
void run_pack(const float* x, std::uint32_t* packed, int n);

/// Lane l copies l % (bytes + 1) of `bytes` bytes; second row of results: even lanes copy all, odd ones nothing.
void run_cp_async(int bytes, const std::uint8_t* in, std::uint8_t* out);
/// in, out: 32 x 16 bytes; lane l reads what lane 31 - l copied, after a barrier on which the copies arrived.
void run_cp_async_arrive(const std::uint8_t* in, std::uint8_t* out);

/// out: `window` bytes of shared memory, 0xEE where nothing landed; the box goes to `offset`.
void run_tma_load(const cuda::TensorShape& shape, const int* coordinates, std::uint32_t offset, std::uint32_t window,
                  std::uint32_t* out);
/// image: `bytes` bytes of shared memory; the box starts at `offset`.
void run_tma_store(const cuda::TensorShape& shape, const int* coordinates, const std::uint32_t* image,
                   std::uint32_t bytes, std::uint32_t offset, bool add);
/// in, out: 2048 bytes; sums (64) += terms (64)
void run_bulk(const std::uint32_t* in, std::uint32_t* out, float* sums, const float* terms);

/// steps [n][2]: operation (0 init, 1 arrive, 2 arrive n, 3 expect, 4 arrive and expect, 5 complete), n.
/// seen [n][2]: is parity 0, 1 over after it?
void run_mbarrier(const std::int32_t* steps, int n, std::uint32_t* seen);

struct WgmmaCase {
  int n, steps, accumulate;  ///< accumulate of the first step; the others always do
  bool a_mn_major, b_mn_major, a_in_registers;
  std::uint32_t a_bytes, b_bytes;
  std::uint64_t a_layout, b_layout;        ///< descriptors of images at address 0
  std::uint32_t a_offset[8], b_offset[8];  ///< of every step
};
/// a: image in shared memory, or registers [step][thread][4]; c, d [thread][n / 2].
void run_wgmma(const WgmmaCase& params, const std::uint32_t* a, const std::uint32_t* b, const float* c, float* d);

}  // namespace nsa::test
