// nsa bench train CONFIG | attention | ops CONFIG: milliseconds, and shares of what this machine can do at most.
#include "eval/bench.h"

#include <cstdio>
#include <nlohmann/json.hpp>

#include "cli/verbs.h"
#include "core/device.h"
#include "core/text.h"
#include "train/run.h"

namespace nsa::cli {

namespace {

using nlohmann::json;

void print_peak(const Peak& peak) {
  std::printf("measured now, %d threads: %.1f GFLOP/s fp32 FMA, %.1f GB/s\n", peak.threads, peak.gflops, peak.gbytes_s);
}

// Two cells, "63.9" and "34.8 %"; empty where nothing was counted.
void add_rate(std::vector<std::string>& cells, double amount, double ms, double most) {
  const double rate = amount / (ms * 1e-3);
  cells.push_back(amount > 0 ? fmt::format("{:.1f}", rate) : "");
  cells.push_back(amount > 0 ? percent(rate / most) : "");
}

Table op_table(const std::vector<BenchRow>& rows, double ms_total, const Peak& peak) {
  Table table{"", {"op", "ms", "share", "calls", "GFLOP/s", "of peak", "GB/s", "of bandwidth"}, {}};
  double gflop = 0, gbytes = 0;
  for (const BenchRow& r : rows) {
    std::vector<std::string> cells{r.name, fmt::format("{:.2f}", r.ms), percent(r.ms / ms_total),
                                   r.calls > 0 ? fmt::format("{:.0f}", r.calls) : ""};
    add_rate(cells, r.gflop, r.ms, peak.gflops);
    add_rate(cells, r.gbytes, r.ms, peak.gbytes_s);
    table.rows.push_back(cells);
    gflop += r.gflop, gbytes += r.gbytes;
  }
  std::vector<std::string> sum{"sum", fmt::format("{:.2f}", ms_total), percent(1), ""};
  add_rate(sum, gflop, ms_total, peak.gflops);
  add_rate(sum, gbytes, ms_total, peak.gbytes_s);
  table.rows.push_back(sum);
  return table;
}

Exit run_train(const Config& config, int repeat, bool as_json, bool only_ops) {
  const TrainBench b = bench_train(config, repeat);
  const double seconds = b.ms_median * 1e-3, gflops = b.gflop / seconds, best = b.gflop / (b.ms_best * 1e-3),
               gbytes_s = b.gbytes / seconds;
  if (as_json) {
    json ops = json::array();
    for (const BenchRow& r : b.ops)
      ops.push_back({{"op", r.name}, {"ms", r.ms}, {"calls", r.calls}, {"gflop", r.gflop}, {"gbytes", r.gbytes}});
    const json out = {{"ms_per_step", b.ms_median},
                      {"ms_per_step_best", b.ms_best},
                      {"tokens_per_s", b.tokens / seconds},
                      {"gflops", gflops},
                      {"peak_gflops", b.peak.gflops},
                      {"share_of_peak", gflops / b.peak.gflops},
                      {"bandwidth_gbytes_s", b.peak.gbytes_s},
                      {"gbytes_s", gbytes_s},
                      {"ms_profiled_step", b.ms_profiled},
                      {"ops", ops}};
    std::printf("%s\n", out.dump().c_str());
    return Exit::ok;
  }
  print_peak(b.peak);
  if (!only_ops) {
    std::printf(
        "step: %.1f ms median of %d, %.1f best; %s tok/s; %.1f GFLOP/s = %s of the peak (best %s); %.1f GB/s = %s of "
        "the bandwidth\n",
        b.ms_median, repeat, b.ms_best, human_count(b.tokens / seconds).c_str(), gflops,
        percent(gflops / b.peak.gflops).c_str(), percent(best / b.peak.gflops).c_str(), gbytes_s,
        percent(gbytes_s / b.peak.gbytes_s).c_str());
  }
  std::fputs(to_text(op_table(b.ops, b.ms_profiled, b.peak)).c_str(), stdout);
  return Exit::ok;
}

struct AttentionArguments {
  std::string type = "full", precision = "f32";
  std::vector<std::int64_t> lengths{2048, 8192};
  std::int64_t heads = 8, kv_heads = 0, head_dim = 64;
  bool backward = false, as_json = false, breakdown = false;
  int repeat = 5, threads = 0;
};

Exit run_attention(const AttentionArguments& args) {
  AttentionSizes sizes;
  sizes.attention.type = args.type == "nsa" ? AttentionType::nsa : AttentionType::full;
  sizes.attention.num_heads = args.heads;
  sizes.attention.num_kv_heads = args.kv_heads ? args.kv_heads : args.heads;
  sizes.attention.head_dim = args.head_dim;
  sizes.type = args.precision == "bf16" ? DType::bf16 : DType::f32;
  if (args.heads % sizes.attention.num_kv_heads)
    fail_usage("--kv-heads {} does not divide --heads {}", sizes.attention.num_kv_heads, args.heads);
  const int threads = args.threads ? args.threads : available_cores();
  const Peak peak = measure_peak(threads);
  json list = json::array();
  Table table{
      "", {"type", "pass", "T", "ms", "best", "tok/s", "GFLOP/s", "of peak", "best", "GB/s", "of bandwidth"}, {}};
  std::string breakdown;
  for (std::int64_t T : args.lengths) {
    sizes.T = T;
    for (const AttentionBench& b : bench_attention(sizes, args.backward, threads, args.repeat)) {
      const double gflops = b.gflop / (b.ms * 1e-3);
      list.push_back({{"type", b.type},
                      {"pass", b.pass},
                      {"seq", T},
                      {"ms", b.ms},
                      {"ms_best", b.ms_best},
                      {"gflops", gflops},
                      {"share_of_peak", gflops / peak.gflops},
                      {"gbytes_s", b.gbytes / (b.ms * 1e-3)}});
      std::vector<std::string> cells{b.type,
                                     b.pass,
                                     std::to_string(T),
                                     fmt::format("{:.1f}", b.ms),
                                     fmt::format("{:.1f}", b.ms_best),
                                     human_count(static_cast<double>(T) / (b.ms * 1e-3))};
      add_rate(cells, b.gflop, b.ms, peak.gflops);
      cells.push_back(percent(b.gflop / (b.ms_best * 1e-3) / peak.gflops));
      add_rate(cells, b.gbytes, b.ms, peak.gbytes_s);
      table.rows.push_back(cells);
      double total = 0;
      for (const BenchRow& r : b.ops) total += r.ms;
      breakdown += fmt::format("\n{} {} at {}\n", b.type, b.pass, T) + to_text(op_table(b.ops, total, peak));
    }
  }
  if (args.as_json) {
    std::printf(
        "%s\n",
        json{{"peak_gflops", peak.gflops}, {"bandwidth_gbytes_s", peak.gbytes_s}, {"attention", list}}.dump().c_str());
    return Exit::ok;
  }
  print_peak(peak);
  std::fputs(to_text(table).c_str(), stdout);
  if (args.breakdown) std::fputs(breakdown.c_str(), stdout);
  return Exit::ok;
}

}  // namespace

Exit bench(CLI::App& app, int argc, char** argv) {
  std::string path;
  std::vector<std::string> overrides;
  bool as_json = false;
  int repeat = 5;
  AttentionArguments attention;
  CLI::App* train = app.add_subcommand("train", "whole optimizer steps of a config on random tokens");
  CLI::App* ops = app.add_subcommand("ops", "the same step, op by op");
  for (CLI::App* sub : {train, ops}) {
    sub->add_option("config", path, "config file")->required()->transform(home_path());
    sub->add_option("overrides", overrides, "section.key=value");
    sub->add_flag("--json", as_json, "one JSON object instead of tables");
    sub->add_option("--repeat", repeat, "timed steps")->check(CLI::Range(1, 10000));
  }
  CLI::App* heads = app.add_subcommand("attention", "attention alone, full or NSA");
  heads->add_option("--type", attention.type, "full or nsa")->check(CLI::IsMember({"full", "nsa"}));
  heads->add_option("--precision", attention.precision, "f32 or bf16")->check(CLI::IsMember(kPrecisions));
  heads->add_option("--seq", attention.lengths, "sequence lengths")->delimiter(',')->check(CLI::PositiveNumber);
  heads->add_option("--heads", attention.heads, "H")->check(CLI::PositiveNumber);
  heads->add_option("--kv-heads", attention.kv_heads, "Hkv; 0: H")->check(CLI::NonNegativeNumber);
  heads->add_option("--head-dim", attention.head_dim, "Dk = Dv")->check(CLI::Range(2, 512));
  heads->add_flag("--backward", attention.backward, "time the backward pass too");
  heads->add_flag("--breakdown", attention.breakdown, "time of every op");
  heads->add_flag("--json", attention.as_json, "one JSON object instead of tables");
  heads->add_option("--repeat", attention.repeat, "timed runs")->check(CLI::Range(1, 10000));
  heads->add_option("--threads", attention.threads, "0: all cores")->check(CLI::NonNegativeNumber);
  app.require_subcommand(1);
  app.parse(argc, argv);
  if (heads->parsed()) return run_attention(attention);
  return run_train(load_config(path, overrides), repeat, as_json, ops->parsed());
}

}  // namespace nsa::cli
