#include "train/metrics.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string_view>

#include "core/text.h"
#include "core/device.h"
#include "core/version.h"

namespace nsa {

namespace {

using Json = nlohmann::ordered_json;  // fields in the order of docs/metrics.md

std::string line_of(const Json& record) { return record.dump(-1, ' ', false, Json::error_handler_t::replace); }

/// Six digits: what a person reads, and a third of the bytes.
double rounded(double x) { return std::isfinite(x) ? std::strtod(fmt::format("{:.6g}", x).c_str(), nullptr) : x; }
std::array<double, 3> rounded(const std::array<double, 3>& x) { return {rounded(x[0]), rounded(x[1]), rounded(x[2])}; }

/// Does the line belong into the file of a run that stands at `step`?
bool keep(std::string_view line, std::int64_t step) {
  const Json record = Json::parse(line, nullptr, false);
  if (!record.is_object()) return false;
  const auto found = record.find("step");
  return found == record.end() || (found->is_number_integer() && found->get<std::int64_t>() <= step);
}

}  // namespace

Speed speed_of(const StepRecord& step, const RunRecord& run) {
  Speed speed;
  if (!(step.ms > 0)) return speed;
  speed.tokens_per_s = static_cast<double>(step.step_tokens) / (step.ms / 1e3);
  if (run.peak_gflops > 0) speed.share_of_peak = speed.tokens_per_s * run.flops_per_token / (run.peak_gflops * 1e9);
  return speed;
}

std::string json_line(const RunRecord& r) {
  Json record{{"type", "run"},
              {"version", version()},
              {"commit", commit()},
              {"command", r.command},
              {"machine", machine_name()},
              {"date", now_utc()},
              {"config", Json::parse(r.config, nullptr, false)},
              {"parameters", r.parameters},
              {"flops_per_token", r.flops_per_token},
              {"peak_gflops", r.peak_gflops},
              {"memory_bytes", r.memory_bytes}};
  if (r.tokenizer_hash) record["tokenizer_hash"] = fmt::format("{:016x}", r.tokenizer_hash);
  if (r.bytes_per_token > 0) record["bytes_per_token"] = r.bytes_per_token;
  record["resumed_from"] = r.resumed_from;
  return line_of(record);
}

std::string json_line(const StepRecord& r, const Speed& speed) {
  Json record{{"type", "step"}, {"step", r.step},           {"tokens", r.tokens},
              {"loss", r.loss}, {"grad_norm", r.grad_norm}, {"lr", r.lr},
              {"ms", r.ms},     {"seconds", r.seconds},     {"tokens_per_s", speed.tokens_per_s}};
  if (speed.share_of_peak) record["share_of_peak"] = *speed.share_of_peak;
  if (r.z_loss) record["z_loss"] = *r.z_loss;
  if (r.z_norm) record["z_norm"] = *r.z_norm;
  record["skipped"] = !r.skipped.empty();
  if (!r.skipped.empty()) record["reason"] = r.skipped;
  return line_of(record);
}

std::string json_line(const ValRecord& r) {
  Json record{{"type", "val"}, {"step", r.step}, {"tokens", r.tokens}, {"loss", r.loss}};
  if (r.bits_per_byte) record["bits_per_byte"] = *r.bits_per_byte;
  record["val_accuracy"] = r.accuracy;
  if (r.counted) record["counted"] = *r.counted;
  for (const ValRecord::Shard& s : r.shards)
    record["shards"].push_back(
        {{"shard", s.path}, {"counted", s.counted}, {"loss", s.loss}, {"val_accuracy", s.accuracy}});
  return line_of(record);
}

std::array<double, 3> LayerLook::share() const {
  const double sum = rms[0] + rms[1] + rms[2];
  if (sum == 0) return {};
  return {rms[0] / sum, rms[1] / sum, rms[2] / sum};
}

std::string json_gates(std::int64_t step, const std::vector<LayerLook>& layers) {
  Json gates = Json::array(), entropy = gates, coverage = gates, rms = gates, share = gates;
  for (const LayerLook& look : layers) {
    gates.push_back(rounded(look.gate));
    entropy.push_back(rounded(look.entropy));
    coverage.push_back({rounded(look.covered), rounded(look.chance)});
    rms.push_back(rounded(look.rms));
    share.push_back(rounded(look.share()));
  }
  return line_of({{"type", "gates"},
                  {"step", step},
                  {"layers", gates},
                  {"entropy", entropy},
                  {"coverage", coverage},
                  {"output_rms", rms},
                  {"output_share", share}});
}

std::vector<std::pair<std::int64_t, std::vector<LayerLook>>> looks_in(const std::string& text) {
  const std::string begin = line_of({{"type", "gates"}}), opening = begin.substr(0, begin.size() - 1) + ",";
  const auto number = [](const Json& value) { return value.is_number() ? value.get<double>() : std::nan(""); };
  std::vector<std::pair<std::int64_t, std::vector<LayerLook>>> looks;
  for (std::size_t at = 0, end = 0; at < text.size(); at = end + 1) {
    end = std::min(text.find('\n', at), text.size());
    if (text.compare(at, opening.size(), opening) != 0) continue;
    const Json record = Json::parse(text.begin() + static_cast<std::ptrdiff_t>(at),
                                    text.begin() + static_cast<std::ptrdiff_t>(end), nullptr, false);
    if (!record.is_object() || !record.contains("output_rms")) continue;
    std::vector<LayerLook> layers;
    for (std::size_t l = 0; l < record["layers"].size(); ++l) {
      LayerLook look;
      for (std::size_t b = 0; b < 3; ++b) {
        look.gate[b] = number(record["layers"][l][b]);
        look.rms[b] = number(record["output_rms"][l][b]);
      }
      look.entropy = number(record["entropy"][l]);
      look.covered = number(record["coverage"][l][0]), look.chance = number(record["coverage"][l][1]);
      layers.push_back(look);
    }
    looks.emplace_back(record["step"].get<std::int64_t>(), std::move(layers));
  }
  return looks;
}

std::string json_checkpoint(std::int64_t step, const std::string& path, double ms) {
  return line_of({{"type", "checkpoint"}, {"step", step}, {"path", path}, {"ms", ms}});
}

std::string json_sample(std::int64_t step, const std::string& text) {
  return line_of({{"type", "sample"}, {"step", step}, {"text", text}});
}

std::string metrics_up_to(const std::string& text, std::int64_t step, std::string* dropped) {
  std::string kept, rest;
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t newline = text.find('\n', begin), end = std::min(newline, text.size());
    const std::string_view line(text.data() + begin, end - begin);
    const bool whole = newline != std::string::npos;  // or it was cut by a crash
    (whole && keep(line, step) ? kept : rest).append(line).push_back('\n');
    begin = end + 1;
  }
  if (dropped) *dropped = rest;
  return kept;
}

bool has_record(const std::string& text, const std::string& type, std::int64_t step) {
  const std::string begin = line_of({{"type", type}, {"step", step}});
  const std::string_view opening(begin.data(), begin.size() - 1);  // without the brace: a record goes on with a comma
  for (std::size_t at = text.find(opening); at != std::string::npos; at = text.find(opening, at + 1)) {
    if ((at == 0 || text[at - 1] == '\n') && text[at + opening.size()] == ',' &&
        text.find('\n', at) != std::string::npos)
      return true;
  }
  return false;
}

std::int64_t last_record(const std::string& text, const std::string& type) {
  const std::string begin = line_of({{"type", type}});
  const std::string opening = begin.substr(0, begin.size() - 1) + ",\"step\":";
  const std::size_t at = text.rfind(opening);
  return at == std::string::npos ? 0 : std::atoll(text.c_str() + at + opening.size());
}

std::string machine_name() {
  std::string model = "unknown CPU";
  std::ifstream info("/proc/cpuinfo");
  for (std::string line; std::getline(info, line);) {
    if (line.rfind("model name", 0) != 0) continue;
    const std::size_t value = line.find_first_not_of(" \t", line.find(':') + 1);
    if (value != std::string::npos) model = line.substr(value);
    break;
  }
  const int cores = available_cores();
  return model + ", " + std::to_string(cores) + (cores == 1 ? " core" : " cores");
}

}  // namespace nsa
