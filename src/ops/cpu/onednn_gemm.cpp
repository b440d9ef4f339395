// Left alone, oneDNN cuts a product by the number of threads, also along K, and the bits of the result follow. So the
// cutting is done here, by sizes only: tiles of C, each computed by oneDNN on one thread.
//
// bf16 without bf16 instructions: the pieces of A and B that a tile needs are widened into the thread's scratch, in
// stretches of K, multiplied as f32, and a bf16 tile of C is summed in f32 there and rounded when it is complete.
//
// Measured with oneDNN 2.6, share of the peak: tiles 75-88 % on a core with AVX2 (Zen 3, 104 GFLOP/s) without
// neighbours; 73-77 % on two with AVX-512 (Zen 4, 236 GFLOP/s), where largest tiles of 256 to 1024 differ by less than
// the noise (docs/measurements/2026-11-28-avx512.md).
#include "ops/cpu/onednn_gemm.h"

#include <omp.h>

#include <algorithm>
#include <map>
#include <tuple>
#include <vector>

#include "core/parallel.h"
#include "ops/cpu/backend.h"
#include "ops/cpu/convert.h"

// oneDNN's headers shadow names of their own.
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wshadow"
#include <dnnl.hpp>
#pragma GCC diagnostic pop

namespace nsa::cpu {

// Making a primitive costs more than a small product takes, so they are kept. Threads share a primitive but not its
// arguments.
struct GemmCache {
  using Key = std::tuple<int, std::int64_t, std::int64_t, std::int64_t, std::int64_t, std::int64_t, std::int64_t, bool,
                         DType, DType>;
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
  const bool has_bf16 = native_bf16();
};

namespace {

constexpr std::int64_t kLargestTile = 512, kPieces = 8;
// A longer sum is done in stretches: a copied tile stays in the cache (of the head it would have a third of the
// weights' size, and again and again).
constexpr std::int64_t kLargestK = 2048;
constexpr std::int64_t kWidenedK = 1024;  // of widened pieces: two of them and the tile of C, 5 MiB a thread at most
constexpr double kSmallestTile = 4e6;     // FLOPs: some tens of microseconds

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

// An f32 operand read along its stored columns with a stride of a multiple of 512 bytes falls into a few sets of the
// cache (of 2 KiB: 2.3 times slower, of 1 KiB: 1.1 to 1.2 times). Its tile is copied. (bf16 is repacked by oneDNN.)
bool needs_copy(bool strided, std::int64_t ld, std::int64_t K, DType type) {
  return type == DType::f32 && strided && ld % 128 == 0 && K > 32;
}
std::int64_t padded(std::int64_t width) { return (width + 15) / 16 * 16 + 16; }

// K cut into equal stretches of at most `largest`; the last may be shorter.
std::int64_t stretch_of(std::int64_t K, std::int64_t largest) {
  const std::int64_t stretches = (K + largest - 1) / largest;
  return ((K + stretches - 1) / stretches + 15) / 16 * 16;
}

Gemm with_strides(Gemm g) {
  if (!g.lda) g.lda = g.form == GemmForm::tn ? g.M : g.K;
  if (!g.ldb) g.ldb = g.form == GemmForm::nt ? g.K : g.N;
  if (!g.ldc) g.ldc = g.N;
  return g;
}

/// Where the operands begin.
struct Operands {
  const void *a, *b;
  void* c;
};
const void* at(const void* p, DType type, std::int64_t elements) {
  return static_cast<const char*>(p) + elements * static_cast<std::int64_t>(bytes_of(type));
}
void* at(void* p, DType type, std::int64_t elements) {
  return static_cast<char*>(p) + elements * static_cast<std::int64_t>(bytes_of(type));
}

/// A product with its strides filled in, and everything that follows from the sizes and types.
struct Plan {
  Gemm g;
  bool add;
  DType in, out;
  bool widen;  ///< bf16 operands are multiplied as f32
  Tiles tiles;
  std::int64_t step;  ///< of K, inside a tile
  bool copy_a, copy_b;
  std::int64_t a_floats = 0, b_floats = 0, c_floats = 0;  ///< of one thread's copies

  bool narrow() const { return widen && out == DType::bf16; }
  bool a_by_k() const { return g.form == GemmForm::tn; }  ///< stored rows of A are those of K
  bool b_by_k() const { return g.form != GemmForm::nt; }
  std::int64_t last_k() const { return (g.K - 1) / step * step; }
};

Plan plan_of(const Gemm& shape, bool add, DType in, DType out, bool widen) {
  Plan p{shape, add, in, out, widen, cut(shape), widen ? stretch_of(shape.K, kWidenedK) : shape.K, widen, widen};
  const Gemm& g = p.g;
  p.copy_a = widen || needs_copy(p.a_by_k(), g.lda, g.K, in);
  p.copy_b = widen || needs_copy(p.b_by_k(), g.ldb, g.K, in);
  const std::int64_t k = std::min(p.step, g.K);
  const auto floats = [](std::int64_t rows, std::int64_t width) { return rows * padded(width); };
  if (p.copy_a) p.a_floats = p.a_by_k() ? floats(k, p.tiles.rows) : floats(p.tiles.rows, k);
  if (p.copy_b) p.b_floats = p.b_by_k() ? floats(k, p.tiles.columns) : floats(p.tiles.columns, k);
  if (p.narrow()) p.c_floats = p.tiles.rows * padded(p.tiles.columns);
  return p;
}

// The product of one tile over one step of K.
Gemm tile_of(const Plan& p, std::int64_t i, std::int64_t j, std::int64_t k) {
  const Gemm& g = p.g;
  const std::int64_t rows = std::min(p.tiles.rows, g.M - i * p.tiles.rows),
                     columns = std::min(p.tiles.columns, g.N - j * p.tiles.columns), K = std::min(p.step, g.K - k);
  return {g.form,
          rows,
          columns,
          K,
          p.copy_a ? padded(p.a_by_k() ? rows : K) : g.lda,
          p.copy_b ? padded(p.b_by_k() ? columns : K) : g.ldb,
          p.narrow() ? padded(columns) : g.ldc};
}

dnnl::memory::data_type onednn_type(DType type) {
  return type == DType::bf16 ? dnnl::memory::data_type::bf16 : dnnl::memory::data_type::f32;
}

dnnl::matmul::primitive_desc describe(const dnnl::engine& engine, const Gemm& g, bool add, DType in, DType out) {
  using dnnl::memory;
  const memory::dims a_strides = g.form == GemmForm::tn ? memory::dims{1, g.lda} : memory::dims{g.lda, 1};
  const memory::dims b_strides = g.form == GemmForm::nt ? memory::dims{1, g.ldb} : memory::dims{g.ldb, 1};
  const memory::desc a({g.M, g.K}, onednn_type(in), a_strides), b({g.K, g.N}, onednn_type(in), b_strides);
  const memory::desc c({g.M, g.N}, onednn_type(out), memory::dims{g.ldc, 1});
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

GemmCache::Entry& find(GemmCache& cache, const Gemm& g, bool add, DType in, DType out) {
  const GemmCache::Key key{static_cast<int>(g.form), g.M, g.N, g.K, g.lda, g.ldb, g.ldc, add, in, out};
  const auto [it, is_new] = cache.entries.try_emplace(key);
  GemmCache::Entry& entry = it->second;
  if (is_new) {
    entry.desc = describe(cache.engine, g, add, in, out);
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
dnnl_status_t execute(GemmCache::Entry& entry, GemmCache& cache, int thread, const Operands& o, float* scratchpad) {
  GemmCache::Arguments& m = entry.arguments[static_cast<std::size_t>(thread)];
  const dnnl_exec_arg_t args[] = {{DNNL_ARG_SRC, m.a.get()},
                                  {DNNL_ARG_WEIGHTS, m.b.get()},
                                  {DNNL_ARG_DST, m.c.get()},
                                  {DNNL_ARG_SCRATCHPAD, m.scratchpad.get()}};
  void* const data[] = {const_cast<void*>(o.a), const_cast<void*>(o.b), o.c, scratchpad};
  for (int i = 0; i < 4; ++i) {
    const dnnl_status_t status = dnnl_memory_set_data_handle(args[i].memory, data[i]);
    if (status != dnnl_success) return status;
  }
  const dnnl::stream& stream = cache.streams[static_cast<std::size_t>(thread)];
  const dnnl_status_t status =
      dnnl_primitive_execute(entry.primitive.get(), stream.get(), entry.scratchpad_floats ? 4 : 3, args);
  return status == dnnl_success ? dnnl_stream_wait(stream.get()) : status;
}

// Stored rows of an operand, as floats.
const float* copy_rows(float* to, std::int64_t to_ld, const void* from, DType type, std::int64_t from_ld,
                       std::int64_t rows, std::int64_t width) {
  dispatch_type(type, [&]<class T>() {
    for (std::int64_t n = 0; n < rows; ++n) convert(to + n * to_ld, static_cast<const T*>(from) + n * from_ld, width);
  });
  return to;
}

// The primitives of a plan. At most four kinds of tile: inside, last column, last row, corner; three of steps: the
// first, those between, the last.
struct Kinds {
  GemmCache::Entry* of[2][2][3] = {};
  std::int64_t scratchpad = 0;

  Kinds(GemmCache& cache, const Plan& p) {
    const DType in = p.widen ? DType::f32 : p.in, out = p.widen ? DType::f32 : p.out;
    for (int last_row : {0, 1})
      for (int last_column : {0, 1})
        for (int step : {0, 1, 2}) {
          const std::int64_t k = step == 0 ? 0 : step == 1 ? std::min(p.step, p.last_k()) : p.last_k();
          const Gemm tile = tile_of(p, last_row ? p.tiles.down - 1 : 0, last_column ? p.tiles.across - 1 : 0, k);
          GemmCache::Entry& entry = find(cache, tile, p.add || k > 0, in, out);
          of[last_row][last_column][step] = &entry;
          scratchpad = std::max(scratchpad, entry.scratchpad_floats);
          if (p.last_k() == 0) break;
        }
  }
  void prepare_all(GemmCache& cache, std::size_t threads) {
    for (auto& row : of)
      for (auto& tile : row)
        for (GemmCache::Entry* entry : tile)
          if (entry) prepare(*entry, cache, threads);
  }
};

// Tile (i, j) on one thread; `scratch` holds that thread's copies and oneDNN's scratchpad.
dnnl_status_t run_tile(GemmCache& cache, const Kinds& kinds, const Plan& p, std::int64_t i, std::int64_t j, int thread,
                       const Operands& o, float* scratch) {
  const Gemm& g = p.g;
  const std::int64_t m = i * p.tiles.rows, n = j * p.tiles.columns;
  const auto& entries = kinds.of[i == p.tiles.down - 1][j == p.tiles.across - 1];
  float* const a_copy = scratch;
  float* const b_copy = a_copy + p.a_floats;
  float* const c_copy = b_copy + p.b_floats;
  float* const scratchpad = c_copy + p.c_floats;
  void* const c_tile = at(o.c, p.out, m * g.ldc + n);
  const Gemm whole = tile_of(p, i, j, 0);
  const auto row_of_c = [&](std::int64_t r) { return static_cast<bf16*>(at(c_tile, p.out, r * g.ldc)); };
  if (p.narrow() && p.add)
    for (std::int64_t r = 0; r < whole.M; ++r) convert(c_copy + r * whole.ldc, row_of_c(r), whole.N);
  for (std::int64_t k = 0; k < g.K; k += p.step) {
    const Gemm t = tile_of(p, i, j, k);
    const void* a = at(o.a, p.in, p.a_by_k() ? k * g.lda + m : m * g.lda + k);
    const void* b = at(o.b, p.in, p.b_by_k() ? k * g.ldb + n : n * g.ldb + k);
    if (p.copy_a) a = copy_rows(a_copy, t.lda, a, p.in, g.lda, p.a_by_k() ? t.K : t.M, p.a_by_k() ? t.M : t.K);
    if (p.copy_b) b = copy_rows(b_copy, t.ldb, b, p.in, g.ldb, p.b_by_k() ? t.K : t.N, p.b_by_k() ? t.N : t.K);
    GemmCache::Entry& entry = *entries[k == 0 ? 0 : k == p.last_k() ? 2 : 1];
    const dnnl_status_t status = execute(entry, cache, thread, {a, b, p.narrow() ? c_copy : c_tile}, scratchpad);
    if (status != dnnl_success) return status;
  }
  if (p.narrow())
    for (std::int64_t r = 0; r < whole.M; ++r) convert(row_of_c(r), c_copy + r * whole.ldc, whole.N);
  return dnnl_success;
}

void run(Device& dev, const Plan& p, const Operands& o) {
  GemmCache& cache = *backend_of(dev).gemms;
  Kinds kinds(cache, p);
  ArenaScope scope(dev.work);
  const std::int64_t threads = std::max(1, dev.threads),
                     floats = p.a_floats + p.b_floats + p.c_floats + kinds.scratchpad;
  const Tensor scratch = dev.scratch({threads, floats});
  if (dev.planning()) return;
  kinds.prepare_all(cache, static_cast<std::size_t>(threads));
  std::vector<dnnl_status_t> worst(static_cast<std::size_t>(threads), dnnl_success);
  float* scratch_of = scratch.raw<float>();
  parallel_for(dev.threads, p.tiles.down * p.tiles.across, [&](std::int64_t tile, int thread) {
    const std::int64_t i = tile / p.tiles.across, j = tile % p.tiles.across;
    const dnnl_status_t status = run_tile(cache, kinds, p, i, j, thread, o, scratch_of + thread * floats);
    if (status != dnnl_success) worst[static_cast<std::size_t>(thread)] = status;
  });
  for (dnnl_status_t status : worst) dnnl::error::wrap_c_api(status, "could not run a product");
}

void fill_rows(const Gemm& g, Out c) {
  dispatch_type(c.dtype, [&]<class T>() {
    for (std::int64_t m = 0; m < g.M; ++m) std::fill_n(c.raw<T>() + m * g.ldc, g.N, T(0.0f));
  });
}

}  // namespace

// oneDNN's instruction sets are sets of bits: a newer one holds those before it.
bool native_bf16() {
  const auto isa = static_cast<unsigned>(dnnl::get_effective_cpu_isa());
  const auto bf16_isa = static_cast<unsigned>(dnnl::cpu_isa::avx512_core_bf16);
  return (isa & bf16_isa) == bf16_isa;
}

void gemm(Device& dev, const Gemm& shape, In a, In b, Out c, Write mode) {
  const Gemm g = with_strides(shape);
  if (g.M == 0 || g.N == 0) return;
  if (g.K == 0) {
    if (!dev.planning() && mode == Write::overwrite) fill_rows(g, c);
    return;
  }
  const OneOmpThread one;
  try {
    if (!backend_of(dev).gemms) backend_of(dev).gemms = std::make_shared<GemmCache>();
    const bool widen = a.dtype == DType::bf16 && !backend_of(dev).gemms->has_bf16;
    // a bf16 C is rounded once: its sum is not cut here
    const std::int64_t step = widen || c.dtype == DType::bf16 ? g.K : stretch_of(g.K, kLargestK);
    Gemm stretch = g;
    for (std::int64_t k = 0; k < g.K; k += step) {
      stretch.K = std::min(step, g.K - k);
      const Operands operands{at(a.raw_bytes(), a.dtype, g.form == GemmForm::tn ? k * g.lda : k),
                              at(b.raw_bytes(), b.dtype, g.form == GemmForm::nt ? k : k * g.ldb), c.raw_bytes()};
      run(dev, plan_of(stretch, mode == Write::add || k > 0, a.dtype, c.dtype, widen), operands);
    }
  } catch (const dnnl::error& e) {
    fail("matmul: oneDNN failed on a product of {} ({}, {}) by ({}, {}) with status {} ({})", name_of(a.dtype), g.M,
         g.K, g.K, g.N, static_cast<int>(e.status), e.what());
  }
}

}  // namespace nsa::cpu
