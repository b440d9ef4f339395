#include "report/measure.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace nsa::report {

const char* unit_of(Measure measure) { return measure == Measure::bits_per_byte ? "bits per byte" : "nats per token"; }

bool same_tokens(const Provenance& a, const Provenance& b) {
  if (!a.tokenizer_hash.empty() && !b.tokenizer_hash.empty()) return a.tokenizer_hash == b.tokenizer_hash;
  for (const char* field : {"data.tokenizer", "model.vocab_size"}) {
    const std::string left = a.config_value(field), right = b.config_value(field);
    if (!left.empty() && !right.empty() && left != right) return false;
  }
  return true;
}

double bytes_per_token(const History& run) {
  if (run.info.bytes_per_token > 0) return run.info.bytes_per_token;
  for (std::size_t i = run.vals.size(); i-- > 0;) {
    const double bytes = run.vals[i].loss / (std::numbers::ln2 * run.vals[i].bits_per_byte);
    if (std::isfinite(bytes) && bytes > 0) return bytes;
  }
  return kMissing;
}

Measure common_measure(const std::vector<History>& runs) {
  bool same = true;
  for (const History& a : runs) {
    for (const History& b : runs) same = same && same_tokens(a.info, b.info);
  }
  if (same) return Measure::nats_per_token;
  std::size_t able = 0;
  for (const Group& group : group_runs(runs)) {
    able += std::any_of(group.runs.begin(), group.runs.end(),
                        [](const History* run) { return std::isfinite(bytes_per_token(*run)); });
  }
  return able > 1 ? Measure::bits_per_byte : Measure::none;
}

void express(std::vector<History>& runs, Measure measure) {
  if (measure != Measure::bits_per_byte) return;
  for (History& run : runs) {
    const double factor = 1 / (std::numbers::ln2 * bytes_per_token(run));
    for (Bucket& bucket : run.buckets) {
      for (double* loss : {&bucket.loss, &bucket.loss_min, &bucket.loss_max}) *loss *= factor;
    }
    for (ValPoint& val : run.vals) val.value = val.bits_per_byte;
  }
}

}  // namespace nsa::report
