// The emulator finds what is wrong with a kernel: every planted defect, in every order of threads, and nothing in the
// kernels that are right.
#include <cmath>

#include "catch.h"
#include "core/dtype.h"
#include "core/rng.h"
#include "cuda_on_cpu/fault.h"
#include "cuda_on_cpu/instrument.h"
#include "cuda_on_cpu/schedule.h"
#include "defects.h"
#include "device_memory.h"

using namespace nsa;
using namespace nsa::test;

namespace {

std::vector<float> numbers(std::size_t n, const char* name) {
  const Rng rng(1, name);
  std::vector<float> v(n);
  for (std::size_t i = 0; i < n; ++i) v[i] = static_cast<float>(static_cast<int>(rng.uniform(i) * 9) - 4);
  return v;
}
std::vector<std::uint16_t> in_bf16(const std::vector<float>& v) {
  std::vector<std::uint16_t> bits;
  for (const float x : v) bits.push_back(bf16(x).bits);
  return bits;
}

/// Is the result right? Integers small enough that every order of sums is exact.
bool reduce_is_right(Defect defect) {
  const int n = 3000, blocks = 5;
  const std::vector<float> x = numbers(static_cast<std::size_t>(n), "x");
  float want = 0;
  for (const float v : x) want += v * v + v;
  const DeviceArray<float> partial(static_cast<std::size_t>(blocks)), out(std::vector<float>{0});
  run_reduce(defect, DeviceArray<float>(x), partial, DeviceArray<unsigned>(std::vector<unsigned>{0}), out, n, blocks);
  return out.host()[0] == want;
}

template <class Run>
bool product_is_right(std::size_t M, std::size_t N, std::size_t K, Run&& run) {
  const std::vector<float> a = numbers(M * K, "a"), b = numbers(N * K, "b");
  const DeviceArray<std::uint16_t> da(in_bf16(a)), db(in_bf16(b));
  const DeviceArray<float> c(M * N);
  run(da, db, c);
  const std::vector<float> got = c.host();
  for (std::size_t m = 0; m < M; ++m)
    for (std::size_t n = 0; n < N; ++n) {
      float want = 0;
      for (std::size_t k = 0; k < K; ++k) want += a[m * K + k] * b[n * K + k];
      if (got[m * N + n] != want) return false;
    }
  return true;
}
bool mma_is_right(Defect defect) {
  return product_is_right(100, 64, 136, [&](const std::uint16_t* a, const std::uint16_t* b, float* c) {
    run_mma_product(defect, a, b, c, 100, 136);
  });
}
bool wgmma_is_right(Defect defect) {
  return product_is_right(200, 128, 328, [&](const std::uint16_t* a, const std::uint16_t* b, float* c) {
    run_wgmma_product(defect, a, b, c, 200, 128, 328);
  });
}

/// What a run said: the Fault's words, "wrong result", or nothing.
std::string verdict(bool (*is_right)(Defect), Defect defect) {
  try {
    return is_right(defect) ? "" : "wrong result";
  } catch (const cuda_on_cpu::Fault& fault) {
    return fault.what();
  }
}

struct Planted {
  Defect defect;
  bool (*is_right)(Defect);
  const char* said;    ///< words of the verdict; '|' between those of different orders
  bool needs_checker;  ///< found only where plain accesses are seen
};
const Planted kPlanted[] = {
    {Defect::no_barrier_before_sum, reduce_is_right, "race, |nobody wrote", true},
    {Defect::no_barrier_after_sum, reduce_is_right, "race, ", true},
    {Defect::shuffle_in_a_branch, reduce_is_right, "deadlock: no thread can run", false},
    {Defect::shuffle_from_outside_its_mask, reduce_is_right, "which is not in its mask", false},
    {Defect::lane_gone_before_shuffle, reduce_is_right, "has lanes that exited|lane 31 exits, but", false},
    {Defect::static_array_overrun, reduce_is_right, "access outside of every array", true},
    {Defect::device_array_overrun, reduce_is_right, "access outside of the allocation", true},
    {Defect::misaligned_vector, reduce_is_right, "misaligned access of 16 bytes", false},
    {Defect::lost_update_between_blocks, reduce_is_right, "race, ", true},
    {Defect::relaxed_counter_between_blocks, reduce_is_right, "race, read after write", true},
    {Defect::uninitialised_shared, reduce_is_right, "read of shared memory that nobody wrote", true},
    {Defect::no_syncwarp, reduce_is_right, "race, |nobody wrote", true},
    {Defect::signal_never_given, reduce_is_right, "deadlock: no thread can run", false},
    {Defect::no_barrier_after_copy, mma_is_right, "race, |nobody wrote", true},
    {Defect::no_barrier_before_refill, mma_is_right, "race, ", true},
    {Defect::no_wait_for_copy, mma_is_right, "race, read after write", true},
    {Defect::no_commit_of_copy, mma_is_right, "race, ", true},
    {Defect::no_tail_mask, mma_is_right, "access outside of the allocation", true},
    {Defect::ldmatrix_overrun, mma_is_right, "access outside of every array", true},
    {Defect::ldmatrix_misaligned, mma_is_right, "no multiple of 16", false},
    {Defect::shared_too_small, mma_is_right, "bytes taken, the launch gave", false},
    {Defect::barrier_in_a_branch, mma_is_right, "race, |divergence: threads meet|deadlock", false},
    {Defect::no_wait_for_full, wgmma_is_right, "race, read after write|nobody wrote", true},
    {Defect::no_wait_for_empty, wgmma_is_right, "race, write after|arrivals, but phase", true},
    {Defect::wrong_bytes, wgmma_is_right, "deadlock: no thread can run", false},
    {Defect::wrong_parity, wgmma_is_right, "deadlock: no thread can run", false},
    {Defect::one_arrival_short, wgmma_is_right, "deadlock: no thread can run", false},
    {Defect::one_arrival_too_many, wgmma_is_right, "race, |arrivals, but phase", true},
    {Defect::no_barrier_after_init, wgmma_is_right, "mbarrier", true},
    {Defect::no_fence_after_init, wgmma_is_right, "mbarrier_fence_init is missing", true},
    {Defect::plain_read_of_mbarrier, wgmma_is_right, "plain access to an mbarrier", true},
    {Defect::no_wgmma_fence, wgmma_is_right, "wgmma_fence is missing", false},
    {Defect::no_wgmma_wait, wgmma_is_right, "race, write after read", true},
    {Defect::release_before_wgmma_wait, wgmma_is_right, "race, write after read", true},
    {Defect::wrong_k_step, wgmma_is_right, "wrong result", false},
    {Defect::too_many_registers, wgmma_is_right, "registers_increase", false},
    {Defect::one_warp_skips_wgmma, wgmma_is_right, "wrong result", false},
    {Defect::no_proxy_fence_before_store, wgmma_is_right, "no fence.proxy.async", true},
    {Defect::no_barrier_before_store, wgmma_is_right, "race, read after write|nobody wrote", true},
    {Defect::store_not_waited_for, wgmma_is_right, "that it has not waited for", false},
    {Defect::overwrites_stored_tile, wgmma_is_right, "race, write after read", true},
    {Defect::named_barrier_short, wgmma_is_right, "named_barrier_sync", false},
};

/// Does `text` have one of the words between the '|'?
bool says(const std::string& text, const std::string& words) {
  for (std::size_t begin = 0; begin <= words.size();) {
    const std::size_t end = std::min(words.find('|', begin), words.size());
    if (text.find(words.substr(begin, end - begin)) != std::string::npos) return true;
    begin = end + 1;
  }
  return false;
}

}  // namespace

TEST_CASE("emulator: nothing is found in kernels that are right") {
  const auto seed = GENERATE(range(0u, 12u));
  INFO("seed " << seed);
  cuda_on_cpu::schedule() = cuda_on_cpu::schedule_of(seed);
  CHECK(verdict(reduce_is_right, Defect::none) == "");
  CHECK(verdict(mma_is_right, Defect::none) == "");
  if (seed < 5) CHECK(verdict(wgmma_is_right, Defect::none) == "");
}

TEST_CASE("emulator: every planted defect is found, in every order") {
  for (const Planted& planted : kPlanted) {
    if (planted.needs_checker && !cuda_on_cpu::instrumented()) continue;
    for (std::uint64_t seed = 0; seed < 4; ++seed) {
      cuda_on_cpu::schedule() = cuda_on_cpu::schedule_of(seed);
      const std::string said = verdict(planted.is_right, planted.defect);
      INFO("defect " << static_cast<int>(planted.defect) << ", seed " << seed << ": " << said);
      CHECK(says(said, planted.said));
    }
  }
}

TEST_CASE("emulator: a deadlock's report says who waits for what") {
  cuda_on_cpu::schedule() = cuda_on_cpu::schedule_of(0);
  // 64 bytes too few are announced: they land, and the phase never ends.
  const std::string bytes = verdict(wgmma_is_right, Defect::wrong_bytes);
  INFO(bytes);
  CHECK(says(bytes, "256 threads, 128 to 383, in mbarrier_wait at defects_wgmma.cu:"));
  CHECK(says(bytes, "in phase 0, 0 of 1 arrivals and -64 bytes missing"));
  const std::string barrier = verdict(wgmma_is_right, Defect::named_barrier_short);
  INFO(barrier);
  CHECK(says(barrier, "128 threads, 128 to 255, in named_barrier_sync at defects_wgmma.cu:"));
  CHECK(says(barrier, "barrier 1, 128 of 160 threads arrived"));
  const std::string registers = verdict(wgmma_is_right, Defect::too_many_registers);
  INFO(registers);
  CHECK(says(registers, "for 240 registers a thread; its warp has 168"));
}

TEST_CASE("emulator: a race's report has both lines") {
  if (!cuda_on_cpu::instrumented()) return;
  cuda_on_cpu::schedule() = cuda_on_cpu::schedule_of(0);
  const std::string race = verdict(mma_is_right, Defect::no_barrier_before_refill);
  INFO(race);
  CHECK(says(race, "cp.async of thread 1 (cp.async at defects_mma.cu:"));
  CHECK(says(race, "(ldmatrix at defects_mma.cu:"));
  CHECK(says(race, "shared memory, array 0 +16 of 8192 bytes"));
  const std::string plain = verdict(reduce_is_right, Defect::no_barrier_after_sum);
  INFO(plain);
  CHECK(says(plain, "(defects_reduce.cu:"));
}
