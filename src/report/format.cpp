#include "report/format.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "core/text.h"

namespace nsa::report {
namespace {

std::string with_minus(std::string text) {
  if (!text.empty() && text[0] == '-') text.replace(0, 1, "\u2212");
  return text;
}

/// "%.*f" without zeros at the end of a fraction.
std::string trimmed(double value, int decimals) {
  std::string text = fmt::format("{:.{}f}", value, std::max(0, decimals));
  if (text.find('.') != std::string::npos) {
    while (text.back() == '0') text.pop_back();
    if (text.back() == '.') text.pop_back();
  }
  return text == "-0" ? "0" : text;
}

/// Three significant digits.
std::string three_digits(double value) {
  if (value == 0) return "0";
  const int exponent = static_cast<int>(std::floor(std::log10(std::fabs(value)) + 1e-12));
  if (exponent < -4) return fmt::format("{:.2g}", value);
  return trimmed(value, 2 - exponent);
}

std::vector<Tick> ticks_every(double min, double max, double step, double divisor, const std::string& suffix) {
  std::vector<Tick> ticks;
  const int decimals = std::max(0, static_cast<int>(std::ceil(-std::log10(step / divisor) - 1e-9)));
  const double slack = step * 1e-6;
  for (double i = std::ceil((min - slack) / step); i * step <= max + slack; ++i) {
    const double value = i * step / divisor;
    ticks.push_back({i * step, i == 0 && divisor != 1
                                   ? "0"
                                   : with_minus(decimals > 6 ? fmt::format("{:.3g}", value)
                                                             : fmt::format("{:.{}f}", value, decimals)) +
                                         suffix});
    if (i == 0) ticks.back().text = "0";
  }
  return ticks;
}

}  // namespace

std::string format_value(double value, Unit unit, int decimals) {
  if (!std::isfinite(value)) return "\u2013";
  const double size = std::fabs(value);
  const std::string sign = value < 0 ? "\u2212" : "";
  switch (unit) {
    case Unit::loss: return sign + fmt::format("{:.{}f}", size, decimals < 0 ? 4 : decimals);
    case Unit::plain: return sign + (decimals < 0 ? three_digits(size) : fmt::format("{:.{}f}", size, decimals));
    case Unit::share: return sign + three_digits(100 * size) + " %";
    case Unit::whole:
      return sign + (size == std::floor(size) ? grouped(static_cast<std::int64_t>(size)) : fmt::format("{:.1f}", size));
    case Unit::count: return sign + human_count(size);
    case Unit::per_second: return sign + human_count(size < 100 ? size : std::round(size)) + "/s";
    case Unit::milliseconds:
      return sign +
             (size < 10000 ? three_digits(size >= 100 ? std::round(size) : size) + " ms" : human_duration(size / 1000));
    case Unit::seconds: return sign + human_duration(size);
    case Unit::bytes: return sign + human_bytes(size);
    case Unit::flops: {
      std::string text = human_count(size);  // "9.80M"
      const std::size_t digits = std::min(text.size(), text.find_last_of("0123456789") + 1);
      return sign + text.insert(digits, " ") + "FLOP";
    }
  }
  return {};
}

std::string format_signed(double value, Unit unit, int decimals) {
  const std::string text = format_value(value, unit, decimals);
  return std::isfinite(value) && value > 0 ? "+" + text : text;
}

int decimals_for(double std_error) {
  if (!std::isfinite(std_error) || std_error <= 0) return 4;
  return std::clamp(1 - static_cast<int>(std::floor(std::log10(std_error))), 1, 6);
}

std::vector<Tick> nice_ticks(double min, double max, int wanted, Unit unit) {
  if (!(max > min)) return {{min, format_value(min, unit)}};
  const double rough = (max - min) / std::max(1, wanted);
  if (unit == Unit::seconds && max >= 60) {
    const double second = max < 120 * 60 ? 60 : max < 48 * 3600 ? 3600 : 86400;
    const std::string suffix = second == 60 ? " min" : second == 3600 ? " h" : " d";
    for (const double step :
         {10., 15., 30., 60., 120., 300., 600., 900., 1200., 1800., 3600., 7200., 10800., 21600., 43200.}) {
      if (step >= rough * 0.8 && (step >= second || step / second == 0.5 || step / second == 0.25))
        return ticks_every(min, max, step, second, suffix);
    }
    return ticks_every(min, max, 86400 * std::ceil(rough / 86400), 86400, " d");
  }
  const double power = std::pow(10, std::floor(std::log10(rough)));
  double step = 10 * power;
  for (const double m : {1., 2., 5.}) {
    if (m * power >= rough * 0.8) {
      step = m * power;
      break;
    }
  }
  const double top = std::max(std::fabs(min), std::fabs(max));
  if (unit == Unit::seconds) return ticks_every(min, max, step, 1, " s");
  if (unit == Unit::loss || unit == Unit::plain || top < 10000) return ticks_every(min, max, step, 1, "");
  for (const auto& [divisor, suffix] : {std::pair{1e12, "T"}, {1e9, "G"}, {1e6, "M"}, {1e3, "k"}}) {
    if (top >= divisor) return ticks_every(min, max, step, divisor, suffix);
  }
  return {};
}

std::vector<Tick> log_ticks(double min, double max, int wanted) {
  const double decades = std::log10(max / min);
  std::vector<double> steps{1, 2, 5};
  if (decades * 3 > wanted * 1.6) steps = {1};
  const int stride = decades > wanted * 1.6 ? static_cast<int>(std::ceil(decades / wanted)) : 1;
  std::vector<Tick> ticks;
  for (int e = static_cast<int>(std::floor(std::log10(min))) - 1; e <= static_cast<int>(std::ceil(std::log10(max)));
       ++e) {
    if (steps.size() == 1 && e % stride != 0) continue;
    for (const double m : steps) {
      const double value = m * std::pow(10, e);
      if (value >= min * 0.999999 && value <= max * 1.000001)
        ticks.push_back({value, e < -3 || e > 5 ? fmt::format("{:.0e}", value) : three_digits(value)});
    }
  }
  return ticks;
}

std::string escape_html(const std::string& text) {
  std::string out;
  for (const char c : text) {
    switch (c) {
      case '&': out += "&amp;"; break;
      case '<': out += "&lt;"; break;
      case '>': out += "&gt;"; break;
      case '"': out += "&quot;"; break;
      default:
        if (static_cast<unsigned char>(c) >= 32 || c == '\n' || c == '\t')
          out += c;  // control characters are not allowed in SVG
    }
  }
  return out;
}

int text_length(const std::string& text) {
  return static_cast<int>(
      std::count_if(text.begin(), text.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; }));
}

std::string shorten(const std::string& text, int limit) {
  const int length = text_length(text);
  if (length <= limit || limit < 3) return text;
  const int head = (limit - 1) / 2, tail = limit - 1 - head;
  std::string out;
  int i = 0;
  for (std::size_t at = 0; at < text.size(); ++at) {
    if ((static_cast<unsigned char>(text[at]) & 0xC0) != 0x80) ++i;
    if (i == head + 1 && (static_cast<unsigned char>(text[at]) & 0xC0) != 0x80) out += "\u2026";
    if (i <= head || i > length - tail) out += text[at];
  }
  return out;
}

}  // namespace nsa::report
