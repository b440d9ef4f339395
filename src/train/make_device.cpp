#include "train/make_device.h"

#include "ops/cpu/onednn_gemm.h"

namespace nsa {

int cpu_threads(const Config& config) { return config.threads ? static_cast<int>(config.threads) : available_cores(); }

Device make_device(DeviceType type, int threads) {
  if (type == DeviceType::cuda)
    fail_usage("device = cuda: this binary was built without CUDA; use device=cpu, or auto to take what is there");
  const Where where = type == DeviceType::fake ? Where::fake : Where::cpu;
  return {.where = where,
          .properties = {fmt::format("{}, {} threads", name_of(where), threads), available_memory(where)},
          .threads = threads,
          .params = {},
          .work = {},
          .profile = nullptr,
          .backend = nullptr};
}

Device make_device(const Config& config) { return make_device(config.device, cpu_threads(config)); }

DType compute_type(const Config& config) {
  return config.train.precision == Precision::bf16 ? DType::bf16 : DType::f32;
}

std::string precision_in_words(const Config& config) {
  const std::string name = kPrecisions[static_cast<std::size_t>(config.train.precision)];
  if (config.train.precision != Precision::bf16 || cpu::native_bf16()) return name;
  return name + " (this CPU has no bf16 instructions: correct, but not faster than f32)";
}

}  // namespace nsa
