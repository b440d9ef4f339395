#include "ops/cpu/onednn_gemm.h"

#include <omp.h>

#include <algorithm>
#include <map>
#include <tuple>

// Old and new oneDNN headers shadow names of their own.
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wshadow"
#include <dnnl.hpp>
#pragma GCC diagnostic pop

namespace nsa {

// Making a primitive costs more than a small product takes, so they are kept. The thread count is part of the key: a primitive may only run on as many
// threads as it was made for.
struct GemmCache {
  using Key = std::tuple<int, std::int64_t, std::int64_t, std::int64_t, std::int64_t, std::int64_t, std::int64_t, bool, int>;
  struct Entry {
    dnnl::matmul::primitive_desc desc;
    dnnl::matmul primitive;                    // made at the first run: planning needs only the description
    dnnl::memory a, b, c, scratchpad;
    std::size_t scratchpad_bytes = 0;
  };
  dnnl::engine engine{dnnl::engine::kind::cpu, 0};
  dnnl::stream stream{engine};
  std::map<Key, Entry> entries;
};

namespace cpu {
namespace {

// oneDNN takes its number of threads from OpenMP's setting of the calling thread.
class OmpThreads {
 public:
  explicit OmpThreads(int threads) : before_(omp_get_max_threads()) { omp_set_num_threads(threads); }
  ~OmpThreads() { omp_set_num_threads(before_); }
  OmpThreads(const OmpThreads&) = delete;
  OmpThreads& operator=(const OmpThreads&) = delete;

 private:
  int before_;
};

dnnl::matmul::primitive_desc describe(const dnnl::engine& engine, const Gemm& g, bool add) {
  using dnnl::memory;
  const std::int64_t lda = g.lda ? g.lda : g.form == GemmForm::tn ? g.M : g.K;
  const std::int64_t ldb = g.ldb ? g.ldb : g.form == GemmForm::nt ? g.K : g.N;
  const memory::dims a_strides = g.form == GemmForm::tn ? memory::dims{1, lda} : memory::dims{lda, 1};
  const memory::dims b_strides = g.form == GemmForm::nt ? memory::dims{1, ldb} : memory::dims{ldb, 1};
  const memory::desc a({g.M, g.K}, memory::data_type::f32, a_strides), b({g.K, g.N}, memory::data_type::f32, b_strides);
  const memory::desc c({g.M, g.N}, memory::data_type::f32, memory::dims{g.ldc ? g.ldc : g.N, 1});
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

GemmCache::Entry& find(Device& dev, const Gemm& g, bool add) {
  if (!dev.gemms) dev.gemms = std::make_shared<GemmCache>();
  GemmCache& cache = *dev.gemms;
  const GemmCache::Key key{static_cast<int>(g.form), g.M, g.N, g.K, g.lda, g.ldb, g.ldc, add, dev.threads};
  const auto [it, is_new] = cache.entries.try_emplace(key);
  GemmCache::Entry& entry = it->second;
  if (is_new) {
    entry.desc = describe(cache.engine, g, add);
    entry.scratchpad_bytes = entry.desc.scratchpad_desc().get_size();
  }
  return entry;
}

void prepare(GemmCache::Entry& entry, const dnnl::engine& engine) {
  entry.a = dnnl::memory(entry.desc.src_desc(), engine, nullptr);
  entry.b = dnnl::memory(entry.desc.weights_desc(), engine, nullptr);
  entry.c = dnnl::memory(entry.desc.dst_desc(), engine, nullptr);
  entry.scratchpad = dnnl::memory(entry.desc.scratchpad_desc(), engine, nullptr);
  entry.primitive = dnnl::matmul(entry.desc);
}

// The C call: the C++ one builds a hash map of the arguments every time.
void execute(GemmCache::Entry& entry, dnnl::stream& stream, const float* a, const float* b, float* c, void* scratchpad) {
  entry.a.set_data_handle(const_cast<float*>(a));
  entry.b.set_data_handle(const_cast<float*>(b));
  entry.c.set_data_handle(c);
  entry.scratchpad.set_data_handle(scratchpad);
  const dnnl_exec_arg_t args[] = {
      {DNNL_ARG_SRC, entry.a.get()}, {DNNL_ARG_WEIGHTS, entry.b.get()}, {DNNL_ARG_DST, entry.c.get()}, {DNNL_ARG_SCRATCHPAD, entry.scratchpad.get()}};
  const int count = entry.scratchpad_bytes ? 4 : 3;
  dnnl::error::wrap_c_api(dnnl_primitive_execute(entry.primitive.get(), stream.get(), count, args), "execute");
  stream.wait();
}

void zero(const Gemm& g, float* c) {
  for (std::int64_t m = 0; m < g.M; ++m) std::fill_n(c + m * (g.ldc ? g.ldc : g.N), g.N, 0.0f);
}

}  // namespace

void gemm(Device& dev, const Gemm& g, const float* a, const float* b, float* c, Write mode) {
  if (g.M == 0 || g.N == 0) return;
  if (g.K == 0) {
    if (!dev.planning() && mode == Write::overwrite) zero(g, c);
    return;
  }
  const OmpThreads threads(dev.threads);
  try {
    GemmCache::Entry& entry = find(dev, g, mode == Write::add);
    ArenaScope scope(dev.work);
    const Tensor scratchpad = dev.scratch({static_cast<std::int64_t>(entry.scratchpad_bytes + 3) / 4});
    if (dev.planning()) return;
    if (!entry.primitive) prepare(entry, dev.gemms->engine);
    execute(entry, dev.gemms->stream, a, b, c, scratchpad.data);
  } catch (const dnnl::error& e) {
    fail("matmul: oneDNN failed on a product of ({}, {}) by ({}, {}) with status {} ({})", g.M, g.K, g.K, g.N, static_cast<int>(e.status), e.what());
  }
}

}  // namespace cpu
}  // namespace nsa
