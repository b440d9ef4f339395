#include "train/log.h"

#include <fmt/format.h>
#include <spdlog/logger.h>
#include <spdlog/sinks/basic_file_sink.h>
#include <spdlog/sinks/stdout_color_sinks.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <utility>

#include "core/check.h"
#include "core/file.h"
#include "core/program.h"
#include "core/text.h"
#include "train/append_file.h"
#include "train/metrics.h"
#include "train/tensorboard.h"

namespace nsa {

namespace {

using Clock = std::chrono::steady_clock;

double share_of(double part, double whole) { return whole > 0 ? part / whole : 0; }

Table data_table(const std::vector<DataRow>& data) {
  Table table{"data", {"", "shards", "tokens", "sequences", "skipped", "bytes/token"}, {}};
  const bool masked = std::any_of(data.begin(), data.end(), [](const DataRow& d) { return d.counted.has_value(); });
  if (masked) table.head.push_back("targets");
  for (const DataRow& d : data) {
    table.rows.push_back({d.split, grouped(d.shards), grouped(d.tokens), grouped(d.sequences),
                          grouped(d.skipped_tokens),
                          d.bytes_per_token > 0 ? fmt::format("{:.3f}", d.bytes_per_token) : "unknown"});
    if (masked)
      table.rows.back().push_back(
          percent(share_of(static_cast<double>(d.counted.value_or(d.tokens)), static_cast<double>(d.tokens)), 2));
  }
  return table;
}

Table parameter_table(const std::vector<ParameterRow>& parameters) {
  std::int64_t tensors = 0, elements = 0;
  for (const ParameterRow& p : parameters) tensors += p.tensors, elements += p.elements;
  Table table{"parameters", {"", "tensors", "elements", "share"}, {}};
  const auto row = [&](const std::string& part, std::int64_t t, std::int64_t n) {
    table.rows.push_back(
        {part, grouped(t), grouped(n), percent(share_of(static_cast<double>(n), static_cast<double>(elements)))});
  };
  for (const ParameterRow& p : parameters) row(p.part, p.tensors, p.elements);
  row("total", tensors, elements);
  return table;
}

Table memory_table(const std::vector<MemoryRow>& memory) {
  std::int64_t total = 0;
  Table table{"memory", {"", "bytes", ""}, {}};
  const auto row = [&](const std::string& what, std::int64_t bytes) {
    table.rows.push_back({what, grouped(bytes), human_bytes(static_cast<double>(bytes))});
  };
  for (const MemoryRow& m : memory) {
    row(m.arena + ": " + m.purpose, m.bytes);
    total += m.bytes;
  }
  row("total", total);
  return table;
}

/// "depth00 12.5 %, depth10 50.0 %": what the shards' names have in common is left out, whole words of it.
std::string by_shard(const std::vector<ValRecord::Shard>& shards) {
  std::vector<std::string> names;
  for (const ValRecord::Shard& s : shards) names.push_back(s.path.substr(s.path.rfind('/') + 1));
  const auto [low, high] = std::minmax_element(names.begin(), names.end());
  const auto common = [](auto a, auto a_end, auto b, auto b_end) {
    std::size_t same = 0, words = 0;
    for (; a != a_end && b != b_end && *a == *b; ++a, ++b) {
      ++same;
      if (*a == '_' || *a == '.') words = same;
    }
    return words;
  };
  const std::size_t head = common(low->begin(), low->end(), high->begin(), high->end());
  std::size_t tail = std::string::npos;
  for (const std::string& name : names)
    tail = std::min(tail, common(name.rbegin(), name.rend(), names[0].rbegin(), names[0].rend()));
  std::string out;
  for (std::size_t i = 0; i < names.size(); ++i) {
    const std::string label =
        head + tail < names[i].size() ? names[i].substr(head, names[i].size() - head - tail) : names[i];
    out += fmt::format("{}{} {}", i ? ", " : "", label, percent(shards[i].accuracy));
  }
  return out;
}

}  // namespace

std::string to_text(const StartTables& tables) {
  std::string out;
  const auto add = [&](const Table& table) { out += (out.empty() ? "" : "\n") + to_text(table); };
  if (!tables.config.empty()) {
    // Two columns of words: padded here so that the second is left-aligned too.
    std::size_t width = 0;
    for (const auto& fact : tables.config) width = std::max(width, fact.first.size());
    Table table{"config", {}, {}};
    for (const auto& [name, value] : tables.config)
      table.rows.push_back({fmt::format("{:<{}}  {}", name, width, value)});
    add(table);
  }
  if (!tables.data.empty()) add(data_table(tables.data));
  if (!tables.parameters.empty()) add(parameter_table(tables.parameters));
  if (!tables.memory.empty()) add(memory_table(tables.memory));
  return out;
}

struct RunLog::Impl {
  explicit Impl(RunLogOptions o) : options(std::move(o)), logger("run") {
    // A file that cannot be opened must be one sentence, not spdlog's exception.
    AppendFile probe(options.dir + "/run.log");
    auto file = std::make_shared<spdlog::sinks::basic_file_sink_st>(probe.path());
    file->set_pattern("%Y-%m-%d %H:%M:%S %l  %v");
    logger.sinks().push_back(file);
    if (options.console) {
      auto console = std::make_shared<spdlog::sinks::stdout_color_sink_st>();
      console->set_pattern("%^%v%$");
      console->set_color_mode(takes_escape_codes(STDOUT_FILENO) ? spdlog::color_mode::always
                                                                : spdlog::color_mode::never);
      console->set_color(spdlog::level::info, console->reset);
      logger.sinks().push_back(console);
    }
    logger.flush_on(spdlog::level::info);
    logger.set_error_handler([](const std::string&) {});  // run.log cannot be written: the console still has the line
  }

  void write(const std::string& line) {
    NSA_CHECK(metrics.has_value(), "run log: start() comes before the first record");
    if (!metrics->append(line + "\n")) complain(metrics->path(), metrics->error());
  }
  void scalars(std::int64_t step, const std::vector<std::pair<std::string, double>>& values) {
    if (tensorboard && !tensorboard->scalars(step, values))
      complain(tensorboard->path(), "the record could not be written");
  }
  /// A record is never destroyed: it is on the disk in the other file before it leaves metrics.jsonl.
  void set_aside(const std::string& lines, std::int64_t step) {
    AppendFile aside(options.dir + "/metrics.dropped.jsonl");
    NSA_CHECK(aside.append(lines) && aside.sync(), "{}: cannot take the records after step {} out of metrics.jsonl: {}",
              aside.path(), step, aside.error());
    logger.info("{} lines after step {} moved from metrics.jsonl to {}", std::count(lines.begin(), lines.end(), '\n'),
                step, aside.path());
  }
  void complain(const std::string& path, const std::string& why) {
    if (!std::exchange(complained, true))
      logger.warn("{}: {}; records are missing from it, the run goes on", path, why);
  }

  /// Seconds until the last step, validation and saving included; the first step of a launch has only its own time to
  /// go by.
  double eta(const StepRecord& r) {
    const auto now = Clock::now();
    if (!first_step) {
      first_step = r.step;
      first_time = now;
    }
    const auto left = static_cast<double>(options.total_steps - r.step);
    if (r.step == *first_step) return left * r.ms / 1e3;
    return left * std::chrono::duration<double>(now - first_time).count() / static_cast<double>(r.step - *first_step);
  }
  std::string line(const StepRecord& r, const Speed& speed);

  RunLogOptions options;
  spdlog::logger logger;
  std::optional<AppendFile> metrics;
  std::optional<TensorBoardWriter> tensorboard;
  RunRecord run;
  std::optional<std::int64_t> first_step;
  Clock::time_point first_time;
  bool complained = false;
};

std::string RunLog::Impl::line(const StepRecord& r, const Speed& speed) {
  const std::string total = fmt::format("{}", options.total_steps);
  const std::string losses = r.skipped == kNoTargets ? "no target of this batch counts"
                                                     : fmt::format("loss {:.4f}  norm {:.3f}", r.loss, r.grad_norm);
  std::string out = fmt::format("step {:>{}}/{}  {}  lr {:.2e}  {:.0f} ms  {} tok/s", r.step, total.size(), total,
                                losses, r.lr, r.ms, human_count(std::round(speed.tokens_per_s)));
  if (speed.share_of_peak) out += "  " + percent(*speed.share_of_peak, 0) + " of peak";
  out += "  ETA " + human_duration(eta(r));
  if (!r.skipped.empty()) out += fmt::format("  SKIPPED ({})", r.skipped);
  return out;
}

RunLog::RunLog(RunLogOptions options) : impl_(std::make_unique<Impl>(std::move(options))) {}
RunLog::~RunLog() = default;

void RunLog::info(const std::string& message) { impl_->logger.info("{}", message); }
void RunLog::warn(const std::string& message) { impl_->logger.warn("warning: {}", message); }
void RunLog::tables(const StartTables& tables) { info("\n" + to_text(tables)); }

void RunLog::start(const RunRecord& record) {
  const std::string path = impl_->options.dir + "/metrics.jsonl";
  AppendFile probe(path);  // the file exists from here on, and an unwritable folder is one sentence
  std::string dropped;
  const std::string kept = metrics_up_to(read_file(path), record.resumed_from, &dropped);
  if (!dropped.empty()) {
    impl_->set_aside(dropped, record.resumed_from);
    write_file_atomic(path, kept);
  }
  sync_folder(impl_->options.dir);
  impl_->metrics.emplace(path);
  if (impl_->options.tensorboard) impl_->tensorboard.emplace(impl_->options.dir, record.resumed_from);
  impl_->run = record;
  impl_->write(json_line(record));
}

void RunLog::step(const StepRecord& r) {
  const Speed speed = speed_of(r, impl_->run);
  impl_->write(json_line(r, speed));
  impl_->scalars(r.step, {{"train/loss", r.loss},
                          {"train/grad_norm", r.grad_norm},
                          {"train/lr", r.lr},
                          {"train/tokens_per_s", speed.tokens_per_s},
                          {"train/ms", r.ms}});
  const std::string line = impl_->line(r, speed);
  const bool shown = r.step % impl_->options.every == 0 || r.step == impl_->options.total_steps ||
                     r.step == *impl_->first_step || !r.skipped.empty();
  if (!shown) return;
  if (r.skipped.empty()) {
    impl_->logger.info("{}", line);
  } else {
    impl_->logger.warn("{}", line);
  }
}

void RunLog::val(const ValRecord& r) {
  impl_->write(json_line(r));
  std::vector<std::pair<std::string, double>> values{{"val/loss", r.loss}};
  std::string line = fmt::format("validation after step {}: loss {:.4f}", r.step, r.loss);
  if (r.bits_per_byte) {
    values.emplace_back("val/bits_per_byte", *r.bits_per_byte);
    line += fmt::format(", {:.4f} bits per byte", *r.bits_per_byte);
  }
  values.emplace_back("val/accuracy", r.accuracy);
  if (r.counted) line += fmt::format(", {} of {} answers right", percent(r.accuracy), grouped(*r.counted));
  impl_->scalars(r.step, values);
  impl_->logger.info("{}", r.seconds > 0 ? line + " (" + human_duration(r.seconds) + ")" : line);
  if (r.shards.size() > 1) impl_->logger.info("answers right: {}", by_shard(r.shards));
}

void RunLog::gates(std::int64_t step, const std::vector<LayerLook>& layers) {
  impl_->write(json_gates(step, layers));
  std::vector<std::pair<std::string, double>> values;
  const auto add = [&](const char* what, std::size_t layer, const char* which, double value) {
    if (std::isfinite(value)) values.emplace_back(fmt::format("{}/layer{}{}", what, layer, which), value);
  };
  for (std::size_t l = 0; l < layers.size(); ++l) {
    const LayerLook& look = layers[l];
    for (std::size_t b = 0; b < 3; ++b) {
      const std::string branch = std::string("/") + kBranches[b];
      add("gates", l, branch.c_str(), look.gate[b]);
      add("output_rms", l, branch.c_str(), look.rms[b]);
      add("output_share", l, branch.c_str(), look.share()[b]);
    }
    add("entropy", l, "", look.entropy);
    add("coverage", l, "/selected", look.covered);
    add("coverage", l, "/chance", look.chance);
  }
  impl_->scalars(step, values);
}

void RunLog::checkpoint(std::int64_t step, const std::string& path, double ms) {
  impl_->write(json_checkpoint(step, path, ms));
  impl_->logger.info("saved {} ({:.0f} ms)", path, ms);
}

void RunLog::sample(std::int64_t step, const std::string& text) {
  impl_->write(json_sample(step, text));
  impl_->logger.info("sample after step {}:\n{}\n", step, text);
}

void RunLog::sync() {
  if (!impl_->metrics->sync()) impl_->complain(impl_->metrics->path(), impl_->metrics->error());
}

}  // namespace nsa
