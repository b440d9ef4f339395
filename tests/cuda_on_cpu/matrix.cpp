#include "cuda_on_cpu/matrix.h"

#include <cstring>

#include "cuda/layout.cuh"
#include "cuda_on_cpu/machine.h"
#include "cuda_on_cpu/race.h"
#include "cuda_on_cpu/shared.h"

namespace cuda_on_cpu {

namespace {

struct Move {
  std::uint32_t* registers;
  unsigned char* row;
  int matrices;
  bool transposed;
  const Site* site;
};

/// Half h of lane l's register of an 8 x 8 matrix of 16-bit elements: its row and column.
struct Place {
  std::uint32_t row, col;
};
Place place(std::uint32_t lane, std::uint32_t h, bool transposed) {
  const std::uint32_t row = lane / 4, col = lane % 4 * 2 + h;
  return transposed ? Place{col, row} : Place{row, col};
}

/// Calls f(register, half, address of the element) for every lane. The addresses of the rows of matrix i come from
/// lanes 8i .. 8i + 7; those of other lanes are not looked at.
template <class F>
void for_elements(void* const* lanes, F&& f) {
  const Move& first = *static_cast<Move*>(lanes[0]);
  for (std::uint32_t lane = 0; lane < kWarp; ++lane)
    for (int i = 0; i < first.matrices; ++i)
      for (std::uint32_t h = 0; h < 2; ++h) {
        const Place p = place(lane, h, first.transposed);
        unsigned char* row = static_cast<Move*>(lanes[static_cast<std::uint32_t>(i) * 8 + p.row])->row;
        f(static_cast<Move*>(lanes[lane])->registers[i], h, row + p.col * 2);
      }
}

void enter_rows(void* const* lanes, const char* what, race::Access access) {
  const Move& first = *static_cast<Move*>(lanes[0]);
  for (std::uint32_t lane = 0; lane < 8 * static_cast<std::uint32_t>(first.matrices); ++lane) {
    const Move& m = *static_cast<Move*>(lanes[lane]);
    if (shared_address(m.row, what) % 16)
      fault("{} at {}: the row of lane {} is at shared address {}, no multiple of 16", what, describe(*first.site),
            lane, shared_address(m.row, what));
    if (!machine.checking) continue;
    const Thread& t = here().threads[self().warp * kWarp + lane];
    race::touch({&t.clock, t.linear, t.clock.of(t.linear), false, race::site_number(what, *first.site)}, m.row, 16,
                access);
  }
}

float low(std::uint32_t r) { return std::bit_cast<float>(r << 16); }
float high(std::uint32_t r) { return std::bit_cast<float>(r & 0xffff0000u); }

struct Mma {
  float* d;
  const std::uint32_t *a, *b;
};

void multiply(void* const* lanes, std::uint32_t) {
  using namespace nsa::cuda;
  float a[16][16], b[16][8], d[16][8];
  for (int lane = 0; lane < 32; ++lane) {
    const Mma& m = *static_cast<Mma*>(lanes[lane]);
    for (int r = 0; r < 4; ++r) {
      a[a_row(lane, r)][a_col(lane, r, 0)] = low(m.a[r]), a[a_row(lane, r)][a_col(lane, r, 1)] = high(m.a[r]);
      d[c_row(lane, r)][c_col(lane, r)] = m.d[r];
    }
    for (int r = 0; r < 2; ++r)
      b[b_row(lane, r, 0)][lane / 4] = low(m.b[r]), b[b_row(lane, r, 1)][lane / 4] = high(m.b[r]);
  }
  for (int m = 0; m < 16; ++m)
    for (int k = 0; k < 16; ++k)
      for (int n = 0; n < 8; ++n) d[m][n] += a[m][k] * b[k][n];
  for (int lane = 0; lane < 32; ++lane)
    for (int r = 0; r < 4; ++r) static_cast<Mma*>(lanes[lane])->d[r] = d[c_row(lane, r)][c_col(lane, r)];
}

}  // namespace

void load_matrices(std::uint32_t* registers, int matrices, bool transposed, const void* row, const Site& site) {
  Move mine{registers, static_cast<unsigned char*>(const_cast<void*>(row)), matrices, transposed, &site};
  meet(
      ~0u, "ldmatrix", true, &mine,
      [](void* const* lanes, std::uint32_t) {
        enter_rows(lanes, "ldmatrix", race::Access::read);
        for_elements(lanes, [](std::uint32_t& r, std::uint32_t h, const unsigned char* element) {
          std::memcpy(reinterpret_cast<unsigned char*>(&r) + 2 * h, element, 2);
        });
      },
      site);
}

void store_matrices(void* row, const std::uint32_t* registers, int matrices, bool transposed, const Site& site) {
  Move mine{const_cast<std::uint32_t*>(registers), static_cast<unsigned char*>(row), matrices, transposed, &site};
  meet(
      ~0u, "stmatrix", true, &mine,
      [](void* const* lanes, std::uint32_t) {
        enter_rows(lanes, "stmatrix", race::Access::write);
        for_elements(lanes, [](const std::uint32_t& r, std::uint32_t h, unsigned char* element) {
          std::memcpy(element, reinterpret_cast<const unsigned char*>(&r) + 2 * h, 2);
        });
      },
      site);
}

}  // namespace cuda_on_cpu

namespace nsa::cuda {

using namespace cuda_on_cpu;

std::uint32_t movmatrix(std::uint32_t r, const Site& site) {
  struct Lane {
    std::uint32_t in, out;
  } mine{r, 0};
  meet(
      ~0u, "movmatrix", true, &mine,
      [](void* const* lanes, std::uint32_t) {
        std::uint32_t matrix[8][8];
        for (std::uint32_t lane = 0; lane < 32; ++lane)
          for (std::uint32_t h = 0; h < 2; ++h)
            matrix[lane / 4][lane % 4 * 2 + h] = static_cast<Lane*>(lanes[lane])->in >> 16 * h & 0xffffu;
        for (std::uint32_t lane = 0; lane < 32; ++lane)
          static_cast<Lane*>(lanes[lane])->out = matrix[lane % 4 * 2][lane / 4] | matrix[lane % 4 * 2 + 1][lane / 4]
                                                                                      << 16;
      },
      site);
  return mine.out;
}

void mma(float (&d)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2], const Site& site) {
  Mma mine{d, a, b};
  meet(~0u, "mma.sync", true, &mine, multiply, site);
}

}  // namespace nsa::cuda
