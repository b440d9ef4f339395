#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "core/median.h"
#include "core/text.h"
#include "report/terminal.h"

namespace nsa::report {
namespace {

constexpr std::size_t kRecent = 100;  // steps over which speed and health are judged
constexpr double kHighZ = 4;

std::string number(double v, int decimals) { return std::isfinite(v) ? fmt::format("{:.{}f}", v, decimals) : "-"; }
std::string short_lr(double v) { return std::isfinite(v) ? fmt::format("{:.3g}", v) : "-"; }

std::string progress(const Records& run, const std::string& name, double age) {
  const StepPoint& last = run.steps.back();
  const double planned = run.info.planned_steps();
  std::string out = fmt::format("{}: step {}", name, grouped(static_cast<std::int64_t>(last.step)));
  if (planned > 0)
    out += fmt::format(" of {} ({})", grouped(static_cast<std::int64_t>(planned)), percent(last.step / planned));
  std::vector<double> ms;
  for (std::size_t i = run.steps.size() - std::min(kRecent, run.steps.size()); i < run.steps.size(); ++i)
    ms.push_back(run.steps[i].ms);
  const double pace = median(ms);
  if (const double at = run.diverged_at(); std::isfinite(at)) {
    out += fmt::format(", diverged at step {}", grouped(static_cast<std::int64_t>(at)));
  } else if (planned > 0 && last.step >= planned) {
    out += ", finished";
  } else if (std::isfinite(pace) && age > std::max(60.0, pace / 1000 * 20)) {
    out += fmt::format(", nothing new for {}", human_duration(age));
  } else if (planned > 0 && std::isfinite(pace)) {
    out += fmt::format(", ETA {}", human_duration((planned - last.step) * pace / 1000));
  }
  out += "\n";
  if (std::isfinite(last.seconds)) out += fmt::format("trained {}", human_duration(last.seconds));
  if (std::isfinite(last.tokens)) out += fmt::format(", {} tokens", human_count(last.tokens));
  if (!run.vals.empty()) {
    const ValPoint& val = run.vals.back();
    out += fmt::format(", validation {} at step {}", number(val.loss, 4), grouped(static_cast<std::int64_t>(val.step)));
    if (std::isfinite(val.bits_per_byte)) out += fmt::format(" ({} bits per byte)", number(val.bits_per_byte, 4));
    if (std::isfinite(val.counted)) out += fmt::format(" ({} of the answers right)", percent(val.accuracy));
  }
  return out + "\n";
}

std::string health(const Records& run) {
  std::int64_t skipped = 0, non_finite = 0, high = 0;
  double last_skipped = 0, worst = 0;
  const std::size_t recent = run.steps.size() - std::min(kRecent, run.steps.size());
  for (std::size_t i = 0; i < run.steps.size(); ++i) {
    const StepPoint& s = run.steps[i];
    non_finite += !std::isfinite(s.loss);
    if (s.skipped) {
      ++skipped;
      last_skipped = s.step;
    }
    const double z = std::fmax(s.z_loss, s.z_norm);
    if (i < recent || !std::isfinite(z)) continue;
    high += z > kHighZ;
    worst = std::max(worst, z);
  }
  std::string out = "health: ";
  out += skipped ? fmt::format("{} skipped (last at step {:.0f})", skipped, last_skipped) : "no step skipped";
  if (non_finite) out += fmt::format(", {} without a finite loss", non_finite);
  out += fmt::format(", highest z-score of the last {} steps {:.1f}{}", run.steps.size() - recent, worst,
                     high ? fmt::format(" ({} above {:.0f})", high, kHighZ) : "");
  out += run.checkpoints.empty()
             ? "; no checkpoint yet"
             : fmt::format("; newest checkpoint: step {:.0f} ({}, saved in {})", run.checkpoints.back().step,
                           run.checkpoints.back().path, format_value(run.checkpoints.back().ms, Unit::milliseconds));
  if (run.info.launches > 1) out += fmt::format("; started {} times", run.info.launches);
  if (run.broken_lines)
    out += fmt::format("; {} lines could not be read, the first is line {}", run.broken_lines, run.first_broken_line);
  return out + "\n";
}

/// "0.61" or "0.61-0.99" over the layers; "" when no layer has a number.
template <std::size_t N>
std::string over_layers(const std::vector<std::array<float, N>>& layers, std::size_t column,
                        std::string (*text)(double)) {
  double low = INFINITY, high = -INFINITY;
  for (const auto& layer : layers) {
    const double v = static_cast<double>(layer[column]);
    if (std::isfinite(v)) low = std::min(low, v), high = std::max(high, v);
  }
  if (low > high) return {};
  const std::string a = text(low), b = text(high);
  return a == b ? a : a + " to " + b;
}

/// NSA: what the last look at the branches saw.
std::string branches(const Records& run) {
  if (run.gates.empty() || run.gates.back().shares.empty()) return {};
  const GateRecord& look = run.gates.back();
  const auto share = [](double v) { return percent(v); };
  const auto plain = [](double v) { return fmt::format("{:.2f}", v); };
  std::string out = fmt::format("branches at step {:.0f}: shares of the output: compressed {}, selected {}, window {}",
                                look.step, over_layers<3>(look.shares, 0, share), over_layers<3>(look.shares, 1, share),
                                over_layers<3>(look.shares, 2, share));
  const std::string entropy = over_layers<1>(look.entropy, 0, plain), covered = over_layers<2>(look.coverage, 0, plain);
  if (!entropy.empty()) out += "; compression entropy " + entropy;
  if (!covered.empty())
    out += fmt::format("; selection covers {} (chance {})", covered, over_layers<2>(look.coverage, 1, plain));
  return out + "\n";
}

}  // namespace

std::string watch_text(const Records& run, const std::string& name, double age, int columns) {
  if (run.steps.empty()) return fmt::format("{}: no step yet\n", name);
  std::string out = progress(run, name, age) + "\n";

  std::vector<double> at, loss;
  for (const Bucket& bucket : thin(run.steps, kMaxBuckets)) {
    at.push_back(bucket.step);
    loss.push_back(bucket.loss);
  }
  TextCurve smooth{"loss, smoothed", at, ema(at, loss, std::max(0.5, std::round(run.steps.back().step / 200)))},
      val{"validation", {}, {}};
  for (const ValPoint& v : run.vals) {
    val.x.push_back(v.step);
    val.y.push_back(v.loss);
  }
  std::vector<TextCurve> curves{smooth};
  if (!val.x.empty()) curves.push_back(val);
  out += plot_text(curves, columns, 14) + "\n";

  Table table;
  table.head = {"step", "loss", "norm", "lr", "ms", "tok/s", "of peak", "z loss", "z norm", ""};
  for (std::size_t i = run.steps.size() - std::min<std::size_t>(8, run.steps.size()); i < run.steps.size(); ++i) {
    const StepPoint& s = run.steps[i];
    table.rows.push_back({fmt::format("{:.0f}", s.step), number(s.loss, 4), number(s.grad_norm, 3), short_lr(s.lr),
                          number(s.ms, s.ms < 100 ? 1 : 0),
                          std::isfinite(s.tokens_per_s) ? human_count(std::round(s.tokens_per_s)) : "-",
                          std::isfinite(s.share_of_peak) ? percent(s.share_of_peak, 0) : "-", number(s.z_loss, 1),
                          number(s.z_norm, 1), s.skipped ? "skipped" : ""});
  }
  return out + to_text(table) + health(run) + branches(run);
}

}  // namespace nsa::report
