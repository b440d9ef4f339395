// The lines of metrics.jsonl (docs/metrics.md), without the newline. A number that is not finite is null, text that is
// not UTF-8 is repaired.
#pragma once

#include <utility>

#include "train/log.h"

namespace nsa {

inline constexpr std::array<const char*, 3> kBranches{"cmp", "slc", "win"};

/// What follows from a step and the run it belongs to.
struct Speed {
  double tokens_per_s = 0;
  std::optional<double> share_of_peak;  ///< absent when the peak was not measured
};
Speed speed_of(const StepRecord& step, const RunRecord& run);

std::string json_line(const RunRecord& record);
std::string json_line(const StepRecord& record, const Speed& speed);
std::string json_line(const ValRecord& record);
std::string json_gates(std::int64_t step, const std::vector<LayerLook>& layers);
std::string json_checkpoint(std::int64_t step, const std::string& path, double ms);
std::string json_sample(std::int64_t step, const std::string& text);

/// The text of metrics.jsonl without the records of a step > `step`, without a last line cut by a crash and without
/// lines that are no JSON object. What is left out goes to `dropped`, line by line.
std::string metrics_up_to(const std::string& text, std::int64_t step, std::string* dropped = nullptr);
/// Does the text hold a record of this type ("val", "sample") at this step?
bool has_record(const std::string& text, const std::string& type, std::int64_t step);
/// The step of the last record of this type; 0 when there is none.
std::int64_t last_record(const std::string& text, const std::string& type);
/// The looks in the text, by step: what json_gates() wrote. Those of programs that recorded the gates alone are left
/// out.
std::vector<std::pair<std::int64_t, std::vector<LayerLook>>> looks_in(const std::string& text);
/// "AMD Ryzen 7 5700X, 2 cores": CPU model and the cores this process may use.
std::string machine_name();

}  // namespace nsa
