// nsa plan CONFIG [section.key=value ...]: what a run would take, without taking it.
#include <cstdio>
#include <filesystem>

#include "cli/verbs.h"
#include "core/peak.h"
#include "core/text.h"
#include "data/tokenizer.h"
#include "model/flops.h"
#include "train/plan.h"
#include "train/run.h"

namespace nsa::cli {

namespace {

// The share of the FMA peak a step is assumed to reach when its time is estimated; docs/measurements has what was
// measured.
constexpr double kAssumedShare = 0.6;

// Known only where the tokenizer is at hand: a plan is also made on machines that have no data.
std::int64_t padding_rows(const Config& config) {
  const std::string& spec = config.data.tokenizer;
  std::error_code ignored;
  if (spec != "bytes" && !std::filesystem::exists(spec, ignored)) return 0;
  return config.model.vocab_size - data::Tokenizer::open(spec).vocab_size();
}

}  // namespace

Exit plan(CLI::App& app, int argc, char** argv) {
  std::string path;
  std::vector<std::string> overrides;
  app.add_option("config", path, "config file (JSON with // comments)")->required()->transform(home_path());
  app.add_option("overrides", overrides, "section.key=value, applied in order");
  app.parse(argc, argv);
  const Config config = load_config(path, overrides);
  const int threads = cpu_threads(config);
  const MemoryPlan memory = plan_memory(config);

  Device counting;
  const Gpt gpt(counting, config.model, config.data.sequence_length, Params::With::training);
  StartTables tables;
  tables.config = config_rows(config, padding_rows(config));
  tables.parameters = parameter_rows(gpt.params());
  tables.memory = memory_rows(memory);
  std::fputs(to_text(tables).c_str(), stdout);

  const Flops flops = flops_per_token(config.model, config.data.sequence_length);
  const double peak = measure_fma_gflops(threads) * 1e9, steps = static_cast<double>(config.total_steps());
  const double step_flops = flops.training() * static_cast<double>(config.train.batch_tokens),
               seconds = step_flops / (kAssumedShare * peak);
  const std::vector<std::vector<std::string>> rows = {
      {"FLOPs per token", human_count(flops.training())},
      {"of them attention", percent(flops.attention / flops.forward())},
      {"FLOPs per step", human_count(step_flops)},
      {"FMA peak, measured now", human_count(peak) + "FLOP/s on " + std::to_string(threads) + " threads"},
      {"time per step", human_duration(seconds) + " at " + percent(kAssumedShare, 0) + " of the peak"},
      {"time of the run", human_duration(seconds * steps)},
      {"checkpoint", human_bytes(static_cast<double>(12 * gpt.params().count()))},
  };
  std::fputs(to_text(Table{"estimate", {}, rows}).c_str(), stdout);
  return Exit::ok;
}

}  // namespace nsa::cli
