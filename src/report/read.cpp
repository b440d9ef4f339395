#include "report/read.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cmath>
#include <cstring>
#include <nlohmann/json.hpp>

#include "core/check.h"
#include "report/scan.h"

namespace nsa::report {
namespace {

/// Strings as they are, everything else as JSON text; objects are walked, lists are values.
void flatten(const nlohmann::json& node, const std::string& prefix,
             std::vector<std::pair<std::string, std::string>>& out) {
  for (const auto& [key, value] : node.items()) {
    const std::string path = prefix.empty() ? key : prefix + "." + key;
    if (value.is_object()) {
      flatten(value, path, out);
    } else {
      out.emplace_back(path, value.is_string() ? value.get<std::string>() : value.dump());
    }
  }
}

double number_or_missing(const nlohmann::json& node, const char* key) {
  const auto it = node.find(key);
  return it != node.end() && it->is_number() ? it->get<double>() : kMissing;
}

std::string text_or_empty(const nlohmann::json& node, const char* key) {
  const auto it = node.find(key);
  return it != node.end() && it->is_string() ? it->get<std::string>() : std::string();
}

/// The numbers of a nested list, N to a row.
template <std::size_t N>
std::vector<std::array<float, N>> rows_of(std::string_view list) {
  const std::vector<double> numbers = scan_numbers(list);
  std::vector<std::array<float, N>> rows(numbers.size() / N);
  for (std::size_t i = 0; i < rows.size() * N; ++i) rows[i / N][i % N] = static_cast<float>(numbers[i]);
  return rows;
}

}  // namespace

std::string Provenance::config_value(std::string_view path) const {
  for (const auto& [key, value] : config) {
    if (key == path) return value;
  }
  return {};
}

double Provenance::planned_steps() const {
  const double steps = scan_number(config_value("train.steps")), tokens = scan_number(config_value("train.tokens"));
  const double batch = scan_number(config_value("train.batch_tokens"));
  if (steps > 0) return steps;
  return tokens > 0 && batch > 0 ? std::ceil(tokens / batch) : 0;
}

double Records::diverged_at() const {
  std::size_t tail = 0;
  while (tail < steps.size()) {
    const StepPoint& s = steps[steps.size() - 1 - tail];
    if (!s.skipped && std::isfinite(s.loss)) break;
    ++tail;
  }
  const double limit = scan_number(info.config_value("train.max_skipped")), planned = info.planned_steps();
  const double enough = limit > 0 ? limit : info.config.empty() ? 2 : 20;
  const bool nothing_else = tail == steps.size() && planned > 0 && static_cast<double>(tail) >= planned;
  if (tail == 0 || (static_cast<double>(tail) < enough && !nothing_else)) return kMissing;
  return steps[steps.size() - tail].step;
}

MetricsReader::Column MetricsReader::column_of(std::string_view key) {
  static constexpr std::pair<std::string_view, Column> kNames[] = {{"step", step},
                                                                   {"type", type},
                                                                   {"tokens", tokens},
                                                                   {"loss", loss},
                                                                   {"grad_norm", grad_norm},
                                                                   {"lr", lr},
                                                                   {"ms", ms},
                                                                   {"seconds", seconds},
                                                                   {"tokens_per_s", tokens_per_s},
                                                                   {"share_of_peak", share_of_peak},
                                                                   {"z_loss", z_loss},
                                                                   {"z_norm", z_norm},
                                                                   {"skipped", skipped},
                                                                   {"val_loss", val_loss},
                                                                   {"bits_per_byte", bits_per_byte},
                                                                   {"val_accuracy", val_accuracy},
                                                                   {"counted", counted},
                                                                   {"layers", layers},
                                                                   {"entropy", entropy},
                                                                   {"coverage", coverage},
                                                                   {"output_share", output_share},
                                                                   {"path", path},
                                                                   // the spellings of other programs
                                                                   {"iter", step},
                                                                   {"iteration", step},
                                                                   {"global_step", step},
                                                                   {"_step", step},
                                                                   {"train_loss", loss},
                                                                   {"train/loss", loss},
                                                                   {"val/loss", val_loss},
                                                                   {"eval_loss", val_loss},
                                                                   {"eval/loss", val_loss},
                                                                   {"valid_loss", val_loss},
                                                                   {"learning_rate", lr},
                                                                   {"norm", grad_norm},
                                                                   {"train/grad_norm", grad_norm},
                                                                   {"time", seconds},
                                                                   {"_runtime", seconds},
                                                                   {"train/learning_rate", lr},
                                                                   {"num_tokens", tokens},
                                                                   {"tokens_seen", tokens}};
  for (const auto& [name, column] : kNames) {
    if (key == name) return column;
  }
  return none;
}

void MetricsReader::feed(std::string_view bytes) {
  std::size_t begin = 0;
  while (begin < bytes.size()) {
    const std::size_t end = bytes.find('\n', begin);
    if (end == std::string_view::npos) {
      rest_.append(bytes.substr(begin));
      return;
    }
    std::string_view text = bytes.substr(begin, end - begin);
    if (!rest_.empty()) {
      rest_.append(text);
      text = rest_;
    }
    ++line_number_;
    if (!line(text) && records.broken_lines++ == 0) records.first_broken_line = line_number_;
    rest_.clear();
    begin = end + 1;
  }
}

void MetricsReader::expect(std::string_view bytes, double total) {
  const auto lines = static_cast<double>(std::count(bytes.begin(), bytes.end(), '\n'));
  records.steps.reserve(
      static_cast<std::size_t>(std::min(1e7, 1.05 * (lines + 1) * total / static_cast<double>(bytes.size()))));
}

void MetricsReader::finish() {
  if (!rest_.empty() && line(rest_)) rest_.clear();
  if (!foreign_) return;
  const auto by_step = [](const auto& a, const auto& b) { return a.step < b.step; };
  // Later lines about the same step win: stable order, then of equals the last is kept.
  const auto keep_last = [&](auto& list) {
    if (std::adjacent_find(list.begin(), list.end(), [](const auto& a, const auto& b) { return a.step >= b.step; }) ==
        list.end())
      return;
    std::stable_sort(list.begin(), list.end(), by_step);
    std::reverse(list.begin(), list.end());
    list.erase(std::unique(list.begin(), list.end(), [](const auto& a, const auto& b) { return a.step == b.step; }),
               list.end());
    std::reverse(list.begin(), list.end());
  };
  keep_last(records.steps);
  keep_last(records.vals);
}

bool MetricsReader::line(std::string_view text) {
  while (!text.empty() && (text.back() == '\r' || text.back() == ' ')) text.remove_suffix(1);
  if (text.empty()) return true;
  return delimiter_ ? column_line(text) : json_line(text);
}

bool MetricsReader::json_line(std::string_view line_text) {
  std::array<double, columns> value;
  value.fill(kMissing);
  std::array<std::string_view, none - columns> texts;
  const auto text = [&](Column column) -> std::string_view& {
    return texts[static_cast<std::size_t>(column - columns)];
  };
  std::size_t index = 0;
  const bool complete = scan_object(line_text, [&](std::string_view key, std::string_view content) {
    if (index == order_.size()) order_.emplace_back();
    Known& known = order_[index++];
    if (known.key != key) known = {std::string(key), column_of(key)};
    if (known.column < columns) {
      // "skipped" may also be the reason itself.
      value[static_cast<std::size_t>(known.column)] =
          known.column == skipped ? content != "false" && content != "null" && content != "0" && !content.empty()
                                  : scan_number(content);
    } else if (known.column < none) {
      text(known.column) = content;
    }
  });
  if (!complete) return false;
  const std::string_view record_type = text(type);
  if (record_type == "run") return run_line(line_text);
  if (!std::isfinite(value[step])) return false;
  if (record_type == "gates") {
    records.gates.push_back({value[step], rows_of<3>(text(layers)), rows_of<1>(text(entropy)),
                             rows_of<2>(text(coverage)), rows_of<3>(text(output_share))});
  } else if (record_type == "checkpoint") {
    records.checkpoints.push_back({value[step], value[ms], std::string(text(path))});
  } else if (record_type == "sample") {
    const auto sample = nlohmann::json::parse(line_text, nullptr, false);
    if (sample.is_object()) records.last_sample = text_or_empty(sample, "text");
  } else {
    store(value, record_type);
  }
  return true;
}

bool MetricsReader::run_line(std::string_view line_text) {
  const auto record = nlohmann::json::parse(line_text, nullptr, false);
  if (!record.is_object()) return false;
  Provenance& info = records.info;
  info.version = text_or_empty(record, "version");
  info.commit = text_or_empty(record, "commit");
  info.command = text_or_empty(record, "command");
  info.machine = text_or_empty(record, "machine");
  info.date = text_or_empty(record, "date");
  info.tokenizer_hash = text_or_empty(record, "tokenizer_hash");
  info.parameters = number_or_missing(record, "parameters");
  info.flops_per_token = number_or_missing(record, "flops_per_token");
  info.peak_gflops = number_or_missing(record, "peak_gflops");
  info.memory_bytes = number_or_missing(record, "memory_bytes");
  info.bytes_per_token = number_or_missing(record, "bytes_per_token");
  ++info.launches;
  info.config.clear();
  if (const auto it = record.find("config"); it != record.end() && it->is_object()) flatten(*it, "", info.config);
  const double resumed_from = number_or_missing(record, "resumed_from");
  if (std::isfinite(resumed_from)) forget_from(resumed_from + 1);
  return true;
}

bool MetricsReader::column_line(std::string_view line_text) {
  if (line_text.front() == '#') line_text.remove_prefix(1);
  split_cells(line_text, delimiter_, cells_);
  if (header_.empty()) {
    const bool names =
        std::none_of(cells_.begin(), cells_.end(), [](std::string_view c) { return std::isfinite(scan_number(c)); });
    if (names) {
      for (std::string_view cell : cells_) header_.push_back(column_of(cell));
      if (std::find(header_.begin(), header_.end(), step) == header_.end()) header_.clear();
      return !header_.empty();
    }
    header_ = {step, loss};
  }
  if (cells_.size() < std::min<std::size_t>(2, header_.size())) return false;
  std::array<double, columns> value;
  value.fill(kMissing);
  for (std::size_t i = 0; i < std::min(cells_.size(), header_.size()); ++i) {
    if (header_[i] < columns) value[static_cast<std::size_t>(header_[i])] = scan_number(cells_[i]);
  }
  if (!std::isfinite(value[step])) return false;
  store(value, {});
  return true;
}

void MetricsReader::store(const std::array<double, columns>& value, std::string_view record_type) {
  if (record_type == "step") {
    if (!records.steps.empty() && value[step] <= records.steps.back().step) forget_from(value[step]);
    store_step(value);
  } else if (record_type == "val") {
    if (!records.vals.empty() && records.vals.back().step >= value[step])
      std::erase_if(records.vals, [&](const ValPoint& v) { return v.step >= value[step]; });
    store_val(value, value[loss]);
  } else if (record_type.empty()) {
    foreign_ = true;
    if (std::isfinite(value[val_loss])) store_val(value, value[val_loss]);
    // A line with only a validation loss is no step; one with loss null is a step without a number.
    if (std::isfinite(value[loss]) || !std::isfinite(value[val_loss])) store_step(value);
  }
}

void MetricsReader::store_step(const std::array<double, columns>& value) {
  records.steps.push_back({value[step], value[tokens], value[loss], value[grad_norm], value[lr], value[ms],
                           value[seconds], value[tokens_per_s], value[share_of_peak], value[z_loss], value[z_norm],
                           value[skipped] > 0});
}

void MetricsReader::store_val(const std::array<double, columns>& value, double loss_value) {
  const double at = records.steps.empty() ? kMissing : records.steps.back().seconds;
  records.vals.push_back({value[step], value[tokens], std::isfinite(value[seconds]) ? value[seconds] : at, loss_value,
                          value[bits_per_byte], loss_value, value[val_accuracy], value[counted]});
}

/// A resumed run writes steps again: what is there from `first_step` on is void.
void MetricsReader::forget_from(double first_step) {
  const auto drop = [&](auto& list) { std::erase_if(list, [&](const auto& r) { return r.step >= first_step; }); };
  drop(records.steps);
  drop(records.vals);
  drop(records.gates);
  drop(records.checkpoints);
}

std::string metrics_path(const std::string& path) {
  struct stat info {};
  NSA_CHECK(::stat(path.c_str(), &info) == 0,
            "cannot read the run {}: {}; expected a run folder, a metrics.jsonl, or a TSV/CSV/JSONL file of step,loss",
            path, std::strerror(errno));
  if (!S_ISDIR(info.st_mode)) return path;
  const std::string file = path + (path.back() == '/' ? "" : "/") + "metrics.jsonl";
  NSA_CHECK(::stat(file.c_str(), &info) == 0,
            "the folder {} has no metrics.jsonl, so it is not the folder of a run (or the run has not begun)", path);
  return file;
}

char detect_delimiter(std::string_view first_bytes) {
  const std::size_t start = first_bytes.find_first_not_of(" \t\r\n");
  if (start == std::string_view::npos || first_bytes[start] == '{') return 0;
  const std::string_view first_line = first_bytes.substr(start, first_bytes.find('\n', start) - start);
  for (char c : {'\t', ';', ','}) {
    if (first_line.find(c) != std::string_view::npos) return c;
  }
  return ' ';
}

Records read_run(const std::string& path) {
  const std::string file = metrics_path(path);
  const int fd = ::open(file.c_str(), O_RDONLY | O_CLOEXEC);
  NSA_CHECK(fd >= 0, "cannot open {}: {}", file, std::strerror(errno));
  std::vector<char> buffer(1 << 18);
  MetricsReader reader;
  bool first = true;
  // read, not mmap: a run that restarts may truncate the file under us.
  for (;;) {
    const ssize_t n = ::read(fd, buffer.data(), buffer.size());
    if (n < 0 && errno == EINTR) continue;
    const int error = errno;
    if (n < 0) ::close(fd);
    NSA_CHECK(n >= 0, "cannot read {}: {}", file, std::strerror(error));
    if (n == 0) break;
    const std::string_view bytes(buffer.data(), static_cast<std::size_t>(n));
    if (first) {
      struct stat info {};
      reader = MetricsReader(detect_delimiter(bytes));
      if (::fstat(fd, &info) == 0) reader.expect(bytes, static_cast<double>(std::max<off_t>(info.st_size, n)));
    }
    first = false;
    reader.feed(bytes);
  }
  ::close(fd);
  reader.finish();
  NSA_CHECK(!reader.records.steps.empty() || !reader.records.vals.empty() || reader.records.info.launches > 0,
            "{} holds no record of a step: {} lines could not be read, the first is line {}; expected metrics.jsonl, "
            "or columns or JSON lines with a step and a loss",
            file, reader.records.broken_lines, reader.records.first_broken_line);
  return std::move(reader.records);
}

}  // namespace nsa::report
