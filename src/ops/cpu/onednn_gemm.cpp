// Left alone, oneDNN cuts a product by the number of threads, also along K, and the bits of the result follow. So the
// cutting is done here, by sizes only: tiles of C, each computed by oneDNN on one thread.
//
// Measured on a core with AVX2 (Zen 3, peak 104 GFLOP/s, oneDNN 2.6) without neighbours, share of the peak: tiles 75-88
// %.
#include "ops/cpu/onednn_gemm.h"

#include <omp.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <tuple>
#include <vector>

#include "core/parallel.h"
#include "ops/cpu/backend.h"

// oneDNN's headers shadow names of their own.
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wshadow"
#include <dnnl.hpp>
#pragma GCC diagnostic pop

namespace nsa::cpu {

// Making a primitive costs more than a small product takes, so they are kept. Threads share a primitive but not its
// arguments.
struct GemmCache {
  using Key = std::tuple<int, std::int64_t, std::int64_t, std::int64_t, std::int64_t, std::int64_t, std::int64_t, bool>;
  struct Arguments {
    dnnl::memory a, b, c, scratchpad;
  };
  struct Entry {
    dnnl::matmul::primitive_desc desc;
    dnnl::matmul primitive;            // made at the first run: planning needs only the description
    std::vector<Arguments> arguments;  // one per thread
    std::int64_t scratchpad_floats = 0;
  };
  dnnl::engine engine{dnnl::engine::kind::cpu, 0};
  std::vector<dnnl::stream> streams;  // one per thread
  std::map<Key, Entry> entries;
};

namespace {

constexpr std::int64_t kLargestTile = 512, kPieces = 8;
// A longer sum is done in stretches: a copied tile stays in the cache (of the head it would have a third of the
// weights' size, and again and again).
constexpr std::int64_t kLargestK = 2048;
constexpr double kSmallestTile = 4e6;  // FLOPs: some tens of microseconds

// oneDNN takes its number of threads from OpenMP's setting of the calling thread.
class OneOmpThread {
 public:
  OneOmpThread() : before_(omp_get_max_threads()) { omp_set_num_threads(1); }
  ~OneOmpThread() { omp_set_num_threads(before_); }
  OneOmpThread(const OneOmpThread&) = delete;
  OneOmpThread& operator=(const OneOmpThread&) = delete;

 private:
  int before_;
};

// How C is cut: tiles of rows x columns, the last ones smaller. A function of the sizes alone. Sides are halved, so
// that 2, 4 or 8 threads get equal shares.
struct Tiles {
  std::int64_t rows, columns, down, across;
};

Tiles cut(const Gemm& g) {
  const auto part = [](std::int64_t n, std::int64_t parts) {
    return std::min(n, ((n + parts - 1) / parts + 15) / 16 * 16);
  };
  std::int64_t down = 1, across = 1;
  for (;;) {
    const std::int64_t rows = part(g.M, down), columns = part(g.N, across);
    const bool too_large = rows > kLargestTile || columns > kLargestTile;
    const bool too_few =
        down * across < kPieces && 2.0 * static_cast<double>(rows * columns) * static_cast<double>(g.K) > kSmallestTile;
    if ((!too_large && !too_few) || (rows <= 16 && columns <= 16))
      return {rows, columns, (g.M + rows - 1) / rows, (g.N + columns - 1) / columns};
    (rows >= columns ? down : across) *= 2;
  }
}

// An operand read along its stored columns with a stride of a multiple of 512 bytes falls into a few sets of the cache
// (of 2 KiB: 2.3 times slower, of 1 KiB: 1.1 to 1.2 times). Its tile is copied.
bool needs_copy(bool strided, std::int64_t ld, std::int64_t K) { return strided && ld % 128 == 0 && K > 32; }
std::int64_t padded(std::int64_t width) { return (width + 15) / 16 * 16 + 16; }

Gemm with_strides(Gemm g) {
  if (!g.lda) g.lda = g.form == GemmForm::tn ? g.M : g.K;
  if (!g.ldb) g.ldb = g.form == GemmForm::nt ? g.K : g.N;
  if (!g.ldc) g.ldc = g.N;
  return g;
}

/// A product with its strides filled in, and everything that follows from the sizes.
struct Plan {
  Gemm g;
  bool add;
  Tiles tiles;
  bool copy_a, copy_b;
  std::int64_t a_floats, b_floats;  // of one thread's copies
};

Plan plan_of(const Gemm& shape, Write mode) {
  Plan p{shape, mode == Write::add, cut(shape), false, false, 0, 0};
  const Gemm& g = p.g;
  p.copy_a = needs_copy(g.form == GemmForm::tn, g.lda, g.K);
  p.copy_b = needs_copy(g.form != GemmForm::nt, g.ldb, g.K);
  p.a_floats = p.copy_a ? g.K * padded(p.tiles.rows) : 0;
  p.b_floats = p.copy_b ? g.K * padded(p.tiles.columns) : 0;
  return p;
}

// The product of one tile.
Gemm tile_of(const Plan& p, std::int64_t i, std::int64_t j) {
  const std::int64_t rows = std::min(p.tiles.rows, p.g.M - i * p.tiles.rows),
                     columns = std::min(p.tiles.columns, p.g.N - j * p.tiles.columns);
  return {p.g.form, rows, columns, p.g.K, p.copy_a ? padded(rows) : p.g.lda, p.copy_b ? padded(columns) : p.g.ldb,
          p.g.ldc};
}

dnnl::matmul::primitive_desc describe(const dnnl::engine& engine, const Gemm& g, bool add) {
  using dnnl::memory;
  const memory::dims a_strides = g.form == GemmForm::tn ? memory::dims{1, g.lda} : memory::dims{g.lda, 1};
  const memory::dims b_strides = g.form == GemmForm::nt ? memory::dims{1, g.ldb} : memory::dims{g.ldb, 1};
  const memory::desc a({g.M, g.K}, memory::data_type::f32, a_strides), b({g.K, g.N}, memory::data_type::f32, b_strides);
  const memory::desc c({g.M, g.N}, memory::data_type::f32, memory::dims{g.ldc, 1});
  dnnl::primitive_attr attr;
  attr.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  if (add) {
    dnnl::post_ops ops;
    ops.append_sum(1.0f);
    attr.set_post_ops(ops);
  }
#if DNNL_VERSION_MAJOR >= 3
  return {engine, a, b, c, attr};
#else
  return {dnnl::matmul::desc(a, b, c), attr, engine};
#endif
}

GemmCache::Entry& find(GemmCache& cache, const Gemm& g, bool add) {
  const GemmCache::Key key{static_cast<int>(g.form), g.M, g.N, g.K, g.lda, g.ldb, g.ldc, add};
  const auto [it, is_new] = cache.entries.try_emplace(key);
  GemmCache::Entry& entry = it->second;
  if (is_new) {
    entry.desc = describe(cache.engine, g, add);
    entry.scratchpad_floats = static_cast<std::int64_t>((entry.desc.scratchpad_desc().get_size() + 63) / 64 * 16);
  }
  return entry;
}

void prepare(GemmCache::Entry& entry, GemmCache& cache, std::size_t threads) {
  while (cache.streams.size() < threads) cache.streams.emplace_back(cache.engine);
  if (!entry.primitive) entry.primitive = dnnl::matmul(entry.desc);
  const auto memory = [&](const dnnl::memory::desc& desc) { return dnnl::memory(desc, cache.engine, nullptr); };
  const dnnl::matmul::primitive_desc& d = entry.desc;
  while (entry.arguments.size() < threads)
    entry.arguments.push_back(
        {memory(d.src_desc()), memory(d.weights_desc()), memory(d.dst_desc()), memory(d.scratchpad_desc())});
}

// Through the C interface: it does not throw, which may not be done inside a parallel region, and it takes no hash map
// of arguments.
dnnl_status_t execute(GemmCache::Entry& entry, GemmCache& cache, int thread, const float* a, const float* b, float* c,
                      float* scratchpad) {
  GemmCache::Arguments& m = entry.arguments[static_cast<std::size_t>(thread)];
  const dnnl_exec_arg_t args[] = {{DNNL_ARG_SRC, m.a.get()},
                                  {DNNL_ARG_WEIGHTS, m.b.get()},
                                  {DNNL_ARG_DST, m.c.get()},
                                  {DNNL_ARG_SCRATCHPAD, m.scratchpad.get()}};
  void* const data[] = {const_cast<float*>(a), const_cast<float*>(b), c, scratchpad};
  for (int i = 0; i < 4; ++i) {
    const dnnl_status_t status = dnnl_memory_set_data_handle(args[i].memory, data[i]);
    if (status != dnnl_success) return status;
  }
  const dnnl::stream& stream = cache.streams[static_cast<std::size_t>(thread)];
  const dnnl_status_t status =
      dnnl_primitive_execute(entry.primitive.get(), stream.get(), entry.scratchpad_floats ? 4 : 3, args);
  return status == dnnl_success ? dnnl_stream_wait(stream.get()) : status;
}

void copy_rows(float* to, std::int64_t to_ld, const float* from, std::int64_t from_ld, std::int64_t rows,
               std::int64_t width) {
  for (std::int64_t k = 0; k < rows; ++k)
    std::memcpy(to + k * to_ld, from + k * from_ld, static_cast<std::size_t>(width) * sizeof(float));
}

// Tile (i, j) on one thread; `scratch` holds that thread's copies and oneDNN's scratchpad.
dnnl_status_t run_tile(GemmCache& cache, GemmCache::Entry& entry, const Plan& p, std::int64_t i, std::int64_t j,
                       int thread, const float* a, const float* b, float* c, float* scratch) {
  const Gemm t = tile_of(p, i, j);
  const std::int64_t m = i * p.tiles.rows, n = j * p.tiles.columns;
  const float* a_tile = a + (p.g.form == GemmForm::tn ? m : m * p.g.lda);
  const float* b_tile = b + (p.g.form == GemmForm::nt ? n * p.g.ldb : n);
  if (p.copy_a) {
    copy_rows(scratch, t.lda, a_tile, p.g.lda, t.K, t.M);
    a_tile = scratch;
  }
  if (p.copy_b) {
    copy_rows(scratch + p.a_floats, t.ldb, b_tile, p.g.ldb, t.K, t.N);
    b_tile = scratch + p.a_floats;
  }
  return execute(entry, cache, thread, a_tile, b_tile, c + m * p.g.ldc + n, scratch + p.a_floats + p.b_floats);
}

void run(Device& dev, const Plan& p, const float* a, const float* b, float* c) {
  GemmCache& cache = *backend_of(dev).gemms;
  const Tiles& tiles = p.tiles;
  // at most four kinds of tile: inside, last column, last row, corner
  GemmCache::Entry* kinds[2][2];
  std::int64_t scratchpad = 0;
  for (int last_row : {0, 1})
    for (int last_column : {0, 1}) {
      GemmCache::Entry& entry =
          find(cache, tile_of(p, last_row ? tiles.down - 1 : 0, last_column ? tiles.across - 1 : 0), p.add);
      kinds[last_row][last_column] = &entry;
      scratchpad = std::max(scratchpad, entry.scratchpad_floats);
    }
  ArenaScope scope(dev.work);
  const std::int64_t threads = std::max(1, dev.threads), floats = p.a_floats + p.b_floats + scratchpad;
  const Tensor scratch = dev.scratch({threads, floats});
  if (dev.planning()) return;
  for (auto& row : kinds)
    for (GemmCache::Entry* entry : row) prepare(*entry, cache, static_cast<std::size_t>(threads));
  std::vector<dnnl_status_t> worst(static_cast<std::size_t>(threads), dnnl_success);
  float* scratch_of = scratch.raw<float>();
  parallel_for(dev.threads, tiles.down * tiles.across, [&](std::int64_t tile, int thread) {
    const std::int64_t i = tile / tiles.across, j = tile % tiles.across;
    GemmCache::Entry& entry = *kinds[i == tiles.down - 1][j == tiles.across - 1];
    const dnnl_status_t status = run_tile(cache, entry, p, i, j, thread, a, b, c, scratch_of + thread * floats);
    if (status != dnnl_success) worst[static_cast<std::size_t>(thread)] = status;
  });
  for (dnnl_status_t status : worst) dnnl::error::wrap_c_api(status, "could not run a product");
}

}  // namespace

void gemm(Device& dev, const Gemm& shape, const float* a, const float* b, float* c, Write mode) {
  const Gemm g = with_strides(shape);
  if (g.M == 0 || g.N == 0) return;
  if (g.K == 0) {
    if (dev.planning() || mode == Write::add) return;
    for (std::int64_t m = 0; m < g.M; ++m) std::fill_n(c + m * g.ldc, g.N, 0.0f);
    return;
  }
  const OneOmpThread one;
  const std::int64_t stretches = (g.K + kLargestK - 1) / kLargestK,
                     length = ((g.K + stretches - 1) / stretches + 15) / 16 * 16;
  const std::int64_t a_step = g.form == GemmForm::tn ? g.lda : 1, b_step = g.form == GemmForm::nt ? 1 : g.ldb;
  try {
    if (!backend_of(dev).gemms) backend_of(dev).gemms = std::make_shared<GemmCache>();
    Gemm stretch = g;
    for (std::int64_t k = 0; k < g.K; k += length) {
      stretch.K = std::min(length, g.K - k);
      run(dev, plan_of(stretch, k == 0 ? mode : Write::add), a + k * a_step, b + k * b_step, c);
    }
  } catch (const dnnl::error& e) {
    fail("matmul: oneDNN failed on a product of ({}, {}) by ({}, {}) with status {} ({})", g.M, g.K, g.K, g.N,
         static_cast<int>(e.status), e.what());
  }
}

}  // namespace nsa::cpu
