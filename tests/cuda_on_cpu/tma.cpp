#include "cuda_on_cpu/tma.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <functional>
#include <utility>

#include "core/check.h"
#include "core/dtype.h"
#include "cuda_on_cpu/machine.h"
#include "cuda_on_cpu/race.h"
#include "cuda_on_cpu/shared.h"

namespace cuda_on_cpu {

namespace {

using nsa::cuda::bytes_of;
using nsa::cuda::TensorShape;

/// One row of a box: contiguous in device memory, in shared memory up to the swizzle.
struct Row {
  std::uint32_t smem = 0;         ///< plain shared address
  const char* global = nullptr;   ///< of the row's first element; null: all of it lies outside
  std::int64_t x = 0, bytes = 0;  ///< byte coordinate of its start, and its length
};

template <class F>
void for_rows(const TensorShape& s, const int* coordinates, std::uint32_t smem, F&& f) {
  const std::uint32_t element = bytes_of(s.type), bytes = s.box[0] * element;
  const std::uint32_t pitch = s.swizzle > 16 && bytes < s.swizzle ? s.swizzle : bytes;
  std::uint32_t rows = 1;
  for (int i = 1; i < s.rank; ++i) rows *= s.box[i];
  for (std::uint32_t r = 0; r < rows; ++r) {
    std::uint32_t rest = r;
    std::int64_t offset = 0;
    bool inside = true;
    for (int i = 1; i < s.rank; ++i) {
      const std::int64_t at = coordinates[i] + std::int64_t{rest % s.box[i]};
      rest /= s.box[i];
      inside = inside && at >= 0 && at < static_cast<std::int64_t>(s.dims[i]);
      offset += at * static_cast<std::int64_t>(s.pitch[i - 1]);
    }
    const std::int64_t x = std::int64_t{coordinates[0]} * element;
    f(Row{smem + r * pitch, inside ? static_cast<const char*>(s.base) + offset + x : nullptr, x, bytes});
  }
}

/// f(shared byte address, device address or null) for every 16 bytes of a row, with how many of them lie inside.
template <class F>
void for_chunks(const TensorShape& s, const Row& row, F&& f) {
  const auto width = static_cast<std::int64_t>(s.dims[0] * bytes_of(s.type));
  for (std::int64_t b = 0; b < row.bytes; b += 16) {
    const std::int64_t x = row.x + b;
    // Starts are multiples of 16 bytes: a chunk never begins left of the array.
    const std::int64_t inside = row.global && x >= 0 && x < width ? std::min<std::int64_t>(16, width - x) : 0;
    f(nsa::cuda::swizzled(row.smem + static_cast<std::uint32_t>(b), s.swizzle), inside ? row.global + b : nullptr,
      static_cast<std::uint32_t>(inside));
  }
}

constexpr std::uint32_t kNanFill = 0x7ff77ff7;  // an H100's, for f32 and bf16

void run_load(const TensorShape& s, const int* coordinates, unsigned char* shared, std::uint32_t smem) {
  const std::uint32_t fill = s.nan_fill ? kNanFill : 0;
  for_rows(s, coordinates, smem, [&](const Row& row) {
    for_chunks(s, row, [&](std::uint32_t to, const char* from, std::uint32_t inside) {
      for (std::uint32_t b = 0; b < 16; b += 4) std::memcpy(shared + to + b, &fill, 4);
      if (inside) std::memcpy(shared + to, from, inside);
    });
  });
}

/// Adds 16 bytes of f32 or bf16 to device memory.
void add_chunk(nsa::cuda::TensorType type, char* to, const unsigned char* from) {
  for (std::uint32_t b = 0; b < 16; b += bytes_of(type)) {
    if (type == nsa::cuda::TensorType::f32) {
      float x, y;
      std::memcpy(&x, to + b, 4), std::memcpy(&y, from + b, 4);
      x += y;
      std::memcpy(to + b, &x, 4);
    } else {
      nsa::bf16 x, y;
      std::memcpy(&x, to + b, 2), std::memcpy(&y, from + b, 2);
      x = nsa::bf16(static_cast<float>(x) + static_cast<float>(y));
      std::memcpy(to + b, &x, 2);
    }
  }
}

void run_store(const TensorShape& s, const int* coordinates, const unsigned char* shared, std::uint32_t smem,
               bool add) {
  for_rows(s, coordinates, smem, [&](const Row& row) {
    for_chunks(s, row, [&](std::uint32_t from, const char* to, std::uint32_t inside) {
      if (!inside) return;
      char* global = const_cast<char*>(to);
      if (add)
        add_chunk(s.type, global, shared + from);
      else
        std::memcpy(global, shared + from, 16);  // all 16, also where the array ends before
    });
  });
}

/// A load that completes on `barrier`: `enter` tells the race checker what it reads and writes, `run` does it.
void start_load(const char* what, const Site& site, nsa::cuda::Mbarrier* b, std::uint32_t bytes,
                const std::function<void(const race::Actor&)>& enter, std::function<void()> run) {
  MemoryBarrier& barrier = memory_barrier(b, what, site);
  if (machine.checking && !barrier.fenced)
    fault("{} at {}: mbarrier_fence_init is missing after the mbarrier's initialisation", what, describe(site));
  Clock clock;
  if (machine.checking) {
    clock = self().clock;
    const std::uint32_t slot = race::slot(here(), race::Agent::loads, cuda_on_cpu::shared_address(b, what));
    enter({&self().clock, slot, barrier.phase + 1, true, race::site_number(what, site)});
    clock.set(slot, barrier.phase + 1);
  }
  issue({Operation::Kind::load, &here(), self().linear, 0, what, site, [=, &barrier, clock = std::move(clock)] {
           run();
           barrier.next.join(clock);
           add_bytes(barrier, -std::int64_t{bytes});
         }});
}

/// A store that its thread waits for in bulk groups.
void start_store(const char* what, const Site& site,
                 const std::function<void(const race::Actor& reads, const race::Actor& writes)>& enter,
                 std::function<void()> run) {
  Thread& me = self();
  const std::uint32_t group = me.bulk_groups + 1;
  if (machine.checking) {
    const std::uint32_t number = race::site_number(what, site);
    enter({&me.clock, race::slot(here(), race::Agent::bulk_reads, me.linear), group, true, number},
          {&me.clock, race::slot(here(), race::Agent::bulk_writes, me.linear), group, true, number});
  }
  issue({Operation::Kind::store, &here(), me.linear, group, what, site, std::move(run)});
}

void check_bulk(const char* what, const Site& site, const void* global, const void* shared, std::uint32_t bytes) {
  const std::uint32_t smem = shared_address(shared, what);
  if (reinterpret_cast<std::uintptr_t>(global) % 16 || smem % 16 || bytes % 16 || bytes == 0)
    fault("{} at {}: device address {}, shared address {} and {} bytes must be multiples of 16", what, describe(site),
          global, smem, bytes);
}

void check_tma(const char* what, const Site& site, const TensorShape& s, const void* shared, const int* coordinates,
               int rank, bool store) {
  if (rank != s.rank) fault("{} at {}: {} coordinates, the map has {}", what, describe(site), rank, s.rank);
  if (const char* why = nsa::cuda::why_faults(s, coordinates, shared_address(shared, what), store))
    fault("{} at {}: {}", what, describe(site), why);
}

}  // namespace

void start_tma_load(void* to, const nsa::cuda::TensorMap& map, nsa::cuda::Mbarrier* b, const int* coordinates, int rank,
                    const Site& site) {
  check_tma("tma_load", site, map.shape, to, coordinates, rank, false);
  const TensorShape s = map.shape;
  std::array<int, 5> c{};
  std::copy_n(coordinates, rank, c.begin());
  std::uint32_t bytes = bytes_of(s.type);
  for (int i = 0; i < rank; ++i) bytes *= s.box[i];
  unsigned char* shared = here().shared;
  const std::uint32_t smem = shared_address(to, "tma_load");
  start_load(
      "tma_load", site, b, bytes,
      [&](const race::Actor& actor) {
        for_rows(s, c.data(), smem, [&](const Row& row) {
          for_chunks(s, row, [&](std::uint32_t into, const char* from, std::uint32_t inside) {
            race::touch(actor, from, inside, race::Access::read);
            race::touch(actor, shared + into, 16, race::Access::write);
          });
        });
      },
      [=] { run_load(s, c.data(), shared, smem); });
}

void start_tma_store(const nsa::cuda::TensorMap& map, const void* from, const int* coordinates, int rank, bool add,
                     const Site& site) {
  const char* what = add ? "tma_reduce_add" : "tma_store";
  check_tma(what, site, map.shape, from, coordinates, rank, true);
  const TensorShape s = map.shape;
  std::array<int, 5> c{};
  std::copy_n(coordinates, rank, c.begin());
  unsigned char* shared = here().shared;
  const std::uint32_t smem = shared_address(from, what);
  start_store(
      what, site,
      [&](const race::Actor& reads, const race::Actor& writes) {
        for_rows(s, c.data(), smem, [&](const Row& row) {
          for_chunks(s, row, [&](std::uint32_t out_of, const char* to, std::uint32_t inside) {
            if (!inside) return;
            race::touch(reads, shared + out_of, 16, race::Access::read);
            race::touch(writes, to, 16, add ? race::Access::atomic : race::Access::write);
          });
        });
      },
      [=] { run_store(s, c.data(), shared, smem, add); });
}

void wait_for_bulk(std::uint32_t groups_left, bool only_reads) {
  Thread& me = self();
  if (me.bulk_groups <= groups_left) return;
  const std::uint32_t done = me.bulk_groups - groups_left;
  complete(Operation::Kind::store, me.linear, done);
  me.bulk_waited = std::max(me.bulk_waited, done);
  if (!machine.checking) return;
  me.clock.set(race::slot(here(), race::Agent::bulk_reads, me.linear), done);
  if (!only_reads) me.clock.set(race::slot(here(), race::Agent::bulk_writes, me.linear), done);
}

}  // namespace cuda_on_cpu

namespace nsa::cuda {

using namespace cuda_on_cpu;

TensorMap make_tensor_map(const TensorShape& shape) {
  if (const char* why = why_refused(shape)) fail("tensor map: {}", why);
  return {shape};
}

void bulk_load(void* to, const void* from, std::uint32_t bytes, Mbarrier* b, const Site& site) {
  check_bulk("bulk_load", site, from, to, bytes);
  start_load(
      "bulk_load", site, b, bytes,
      [&](const race::Actor& actor) {
        race::touch(actor, from, bytes, race::Access::read);
        race::touch(actor, to, bytes, race::Access::write);
      },
      [=] { std::memcpy(to, from, bytes); });
}

void bulk_store(void* to, const void* from, std::uint32_t bytes, const Site& site) {
  check_bulk("bulk_store", site, to, from, bytes);
  start_store(
      "bulk_store", site,
      [&](const race::Actor& reads, const race::Actor& writes) {
        race::touch(reads, from, bytes, race::Access::read);
        race::touch(writes, to, bytes, race::Access::write);
      },
      [=] { std::memcpy(to, from, bytes); });
}

void bulk_reduce_add(float* to, const float* from, std::uint32_t bytes, const Site& site) {
  check_bulk("bulk_reduce_add", site, to, from, bytes);
  start_store(
      "bulk_reduce_add", site,
      [&](const race::Actor& reads, const race::Actor& writes) {
        race::touch(reads, from, bytes, race::Access::read);
        race::touch(writes, to, bytes, race::Access::atomic);
      },
      [=] {
        for (std::uint32_t i = 0; i < bytes / 4; ++i) to[i] += from[i];
      });
}

void bulk_commit() { ++self().bulk_groups; }

}  // namespace nsa::cuda
