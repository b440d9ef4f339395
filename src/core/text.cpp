#include "core/text.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <ctime>

namespace nsa {

namespace {

/// Three significant digits and a unit; the smallest unit is whole.
std::string scaled(double n, double base, const std::vector<std::string>& units) {
  std::size_t unit = 0;
  // 999.5 would print as 1000: the next unit begins where three digits end.
  while (unit + 1 < units.size() && std::abs(n) >= (base == 1000 ? 999.5 : 1023.5)) {
    n /= base;
    ++unit;
  }
  if (unit == 0) return fmt::format("{:.0f}{}", n, units[0]);
  const double a = std::abs(n);
  return fmt::format("{:.{}f}{}", n, a < 9.995 ? 2 : a < 99.95 ? 1 : 0, units[unit]);
}

}  // namespace

std::string human_count(double n) {
  if (!std::isfinite(n)) return fmt::format("{}", n);
  if (n != std::floor(n) && std::abs(n) < 99.95) return fmt::format("{:.{}f}", n, std::abs(n) < 9.995 ? 2 : 1);
  return scaled(n, 1000, {"", "k", "M", "G", "T", "P", "E"});
}

std::string human_bytes(double bytes) { return scaled(bytes, 1024, {" B", " KiB", " MiB", " GiB", " TiB", " PiB"}); }

std::string human_duration(double seconds) {
  if (!std::isfinite(seconds) || seconds < 0) return "?";
  if (seconds < 9.95) return fmt::format("{:.1f} s", seconds);
  if (seconds < 59.5) return fmt::format("{:.0f} s", seconds);
  const auto s = static_cast<std::int64_t>(std::llround(seconds)), minutes = s / 60, hours = minutes / 60,
             days = hours / 24;
  if (hours < 1) return fmt::format("{}:{:02}", minutes, s % 60);
  if (days < 1) return fmt::format("{}:{:02}:{:02}", hours, minutes % 60, s % 60);
  return fmt::format("{}d {:02}:{:02}", days, hours % 24, minutes % 60);
}

std::string percent(double share, int decimals) { return fmt::format("{:.{}f} %", 100 * share, decimals); }

std::string grouped(std::int64_t n) {
  std::string digits = fmt::format("{}", n);
  const std::size_t first = n < 0 ? 1 : 0;
  for (std::size_t i = digits.size(); i > first + 3;) digits.insert(i -= 3, ",");
  return digits;
}

std::string to_text(const Table& table) {
  std::vector<std::size_t> width;
  const auto widen = [&](const std::vector<std::string>& cells) {
    for (std::size_t i = 0; i < cells.size(); ++i) {
      if (i == width.size()) width.push_back(0);
      width[i] = std::max(width[i], cells[i].size());
    }
  };
  widen(table.head);
  for (const auto& row : table.rows) widen(row);

  std::string out = table.title.empty() ? "" : table.title + "\n";
  const auto line = [&](const std::vector<std::string>& cells) {
    std::string text;
    for (std::size_t i = 0; i < cells.size(); ++i)
      text += i == 0 ? fmt::format("  {:<{}}", cells[i], width[i]) : fmt::format("  {:>{}}", cells[i], width[i]);
    text.erase(text.find_last_not_of(' ') + 1);
    out += text + "\n";
  };
  if (!table.head.empty()) line(table.head);
  for (const auto& row : table.rows) line(row);
  return out;
}

std::string now_utc() {
  const std::time_t now = std::time(nullptr);
  std::tm utc{};
  gmtime_r(&now, &utc);
  char text[32];
  std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &utc);
  return text;
}

}  // namespace nsa
