// TMA against what an H100 did: boxes, swizzles, what lies outside, what it refuses.
#include <cstring>

#include "catch.h"
#include "cuda_on_cpu/fault.h"
#include "cuda_on_cpu/schedule.h"
#include "device_memory.h"
#include "golden_silicon.h"
#include "silicon.h"

using namespace nsa;
using namespace nsa::test;

namespace {

void any_schedule() { cuda_on_cpu::schedule() = cuda_on_cpu::schedule_of(GENERATE(0u, 1u, 2u, 3u)); }

struct Load {
  cuda::TensorShape shape;
  std::uint32_t offset = 0;
  int coordinates[5] = {};
  std::vector<unsigned char> array;
};

/// "geometry" of a recorded load, and the array: element number e over the pitched array is e (bf16: its low 16 bits).
Load recorded_load(const std::string& name) {
  const auto g = silicon().get<std::int32_t>(name + ".geometry");
  Load load;
  cuda::TensorShape& s = load.shape;
  s.rank = g[0], s.type = g[1] == 4 ? cuda::TensorType::f32 : cuda::TensorType::bf16;
  s.swizzle = static_cast<std::uint32_t>(g[2]), load.offset = static_cast<std::uint32_t>(g[3]), s.nan_fill = g[4] != 0;
  const auto element = static_cast<std::uint64_t>(g[1]);
  const auto at = [&](int block, int i) { return g[static_cast<std::size_t>(5 + block * s.rank + i)]; };
  std::uint64_t pitch = (static_cast<std::uint64_t>(at(0, 0)) * element + 15) / 16 * 16 + 16;
  for (int i = 0; i < s.rank; ++i) {
    s.dims[i] = static_cast<std::uint64_t>(at(0, i)), s.box[i] = static_cast<std::uint32_t>(at(1, i));
    load.coordinates[i] = at(2, i);
    if (i + 1 < s.rank) s.pitch[i] = pitch, pitch *= static_cast<std::uint64_t>(at(0, i + 1));
  }
  load.array.resize(pitch);
  for (std::size_t e = 0; e < pitch / element; ++e) {
    const float number = static_cast<float>(e);
    const auto bits = static_cast<std::uint16_t>(s.nan_fill ? e & 0x3FFF : e);
    if (element == 4)
      std::memcpy(&load.array[e * 4], &number, 4);
    else
      std::memcpy(&load.array[e * 2], &bits, 2);
  }
  return load;
}

struct Store {
  cuda::TensorShape shape;
  std::uint32_t offset = 0;
  int coordinates[2] = {};
};
Store recorded_store(const std::string& name) {
  const auto g = silicon().get<std::int32_t>(name + ".geometry");
  const auto u = [&](std::size_t i) { return static_cast<std::uint32_t>(g[i]); };
  Store store;
  cuda::TensorShape& s = store.shape;
  s.type = g[0] == 4 ? cuda::TensorType::f32 : cuda::TensorType::bf16;
  s.swizzle = u(1), s.box[0] = u(2), s.box[1] = u(3), s.dims[0] = u(6), s.dims[1] = u(7), s.pitch[0] = u(8);
  store.coordinates[0] = g[4], store.coordinates[1] = g[5], store.offset = u(9);
  return store;
}

std::vector<std::uint32_t> words(const std::vector<unsigned char>& bytes) {
  std::vector<std::uint32_t> v(bytes.size() / 4);
  std::memcpy(v.data(), bytes.data(), v.size() * 4);
  return v;
}

std::size_t differences(const std::vector<std::uint32_t>& a, const std::vector<std::uint32_t>& b) {
  std::size_t n = a.size() == b.size() ? 0 : 1;
  for (std::size_t i = 0; i < std::min(a.size(), b.size()); ++i) n += a[i] != b[i];
  return n;
}

}  // namespace

TEST_CASE("silicon: TMA loads") {
  any_schedule();
  std::size_t seen = 0;
  for (const std::string& name : silicon().cases("tma_", "smem")) {
    if (name.rfind("tma_store", 0) == 0) continue;
    INFO(name);
    Load load = recorded_load(name);
    const auto want = silicon().get<std::uint32_t>(name + ".smem");
    const DeviceArray<unsigned char> array(load.array);
    load.shape.base = array;
    const DeviceArray<std::uint32_t> out(want.size());
    run_tma_load(load.shape, load.coordinates, load.offset, static_cast<std::uint32_t>(want.size() * 4), out);
    CHECK(differences(out.host(), want) == 0);
    ++seen;
  }
  CHECK(seen > 40);
}

TEST_CASE("silicon: TMA stores and reductions") {
  any_schedule();
  std::size_t seen = 0;
  for (const std::string& name : silicon().cases("tma_store.", "global_after")) {
    INFO(name);
    Store store = recorded_store(name);
    const auto image = silicon().get<std::uint32_t>(name + ".smem");
    const DeviceArray<unsigned char> array(silicon().get<unsigned char>(name + ".global_before"));
    store.shape.base = array;
    run_tma_store(store.shape, store.coordinates, DeviceArray<std::uint32_t>(image),
                  static_cast<std::uint32_t>(image.size() * 4), store.offset,
                  name.find(".reduce.") != std::string::npos);
    CHECK(differences(words(array.host()), silicon().get<std::uint32_t>(name + ".global_after")) == 0);
    ++seen;
  }
  CHECK(seen >= 10);
}

TEST_CASE("silicon: what TMA refuses when it runs") {
  if (!emulated()) return;  // on a GPU such a fault ends the process
  std::size_t seen = 0;
  for (const std::string& name : silicon().cases("tma_", "cuda_error")) {
    INFO(name);
    if (name.rfind("tma_illegal_load", 0) == 0) {
      Load load = recorded_load(name);
      const DeviceArray<unsigned char> array(load.array);
      load.shape.base = array;
      CHECK_THROWS_AS(run_tma_load(load.shape, load.coordinates, load.offset, 8192, DeviceArray<std::uint32_t>(2048)),
                      cuda_on_cpu::Fault);
    } else {
      Store store = recorded_store(name);
      const DeviceArray<unsigned char> array(store.shape.pitch[0] * store.shape.dims[1]);
      store.shape.base = array;
      CHECK_THROWS_AS(
          run_tma_store(store.shape, store.coordinates, DeviceArray<std::uint32_t>(std::vector<std::uint32_t>(1024)),
                        4096, store.offset, name.find(".reduce.") != std::string::npos),
          cuda_on_cpu::Fault);
    }
    ++seen;
  }
  CHECK(seen >= 7);
}

TEST_CASE("silicon: which tensor maps the driver refuses") {
  // The arguments that were tried: dims, pitch, box, swizzle and where the array starts.
  struct Tried {
    const char* name;
    std::uint64_t x, y, pitch;
    std::uint32_t box_x, box_y, swizzle;
    std::uintptr_t start;
  };
  const Tried all[] = {{"plain", 120, 37, 256, 64, 20, 128, 0},
                       {"base_8", 120, 37, 256, 64, 20, 128, 8},
                       {"base_16", 120, 37, 256, 64, 20, 128, 16},
                       {"pitch_8", 120, 37, 248, 64, 20, 128, 0},
                       {"pitch_below_row", 120, 37, 128, 64, 20, 128, 0},
                       {"pitch_zero", 120, 37, 0, 64, 20, 128, 0},
                       {"dim_zero", 0, 37, 256, 64, 20, 128, 0},
                       {"box_257", 120, 370, 256, 64, 257, 128, 0},
                       {"box_256", 120, 370, 256, 64, 256, 128, 0},
                       {"box_zero", 120, 37, 256, 64, 0, 128, 0},
                       {"box_inner_24", 120, 37, 256, 12, 20, 16, 0},
                       {"box_inner_above_swizzle", 120, 37, 256, 72, 20, 128, 0},
                       {"box_wider_than_tensor", 40, 37, 256, 64, 20, 128, 0},
                       {"ragged_inner", 117, 37, 256, 64, 20, 128, 0}};
  CHECK(silicon().cases("tma_encode.", "result").size() == std::size(all));
  for (const Tried& t : all) {
    INFO(t.name);
    cuda::TensorShape s;
    s.base = reinterpret_cast<void*>(std::uintptr_t{4096} + t.start);
    s.dims[0] = t.x, s.dims[1] = t.y, s.pitch[0] = t.pitch, s.box[0] = t.box_x, s.box[1] = t.box_y,
    s.swizzle = t.swizzle;
    const bool refused = silicon().get<std::int32_t>(std::string("tma_encode.") + t.name + ".result")[0] != 0;
    CHECK((cuda::why_refused(s) != nullptr) == refused);
  }
}
