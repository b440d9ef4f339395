// Scanning one line of JSON or of columns without building anything: reports read gigabytes of metrics.
#pragma once

#include <algorithm>
#include <charconv>
#include <cstdint>
#include <limits>
#include <string_view>
#include <vector>

namespace nsa::report {

/// The number in `text` (blanks around it allowed); NaN for anything else, null and the empty text included.
inline double scan_number(std::string_view text) {
  constexpr double kPowers[] = {1, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15};
  while (!text.empty() && (text.front() == ' ' || text.front() == '"' || text.front() == '+')) text.remove_prefix(1);
  const char* p = text.data();
  const char* const end = p + text.size();
  // Up to 15 digits without exponent: digits and power of ten are exact doubles, so one division rounds as it should.
  const bool negative = p != end && *p == '-';
  p += negative;
  std::uint64_t digits = 0;
  int count = 0, fraction = 0;
  for (; p != end && *p >= '0' && *p <= '9' && count < 16; ++p, ++count)
    digits = digits * 10 + static_cast<std::uint64_t>(*p - '0');
  if (count && p != end && *p == '.') {
    for (++p; p != end && *p >= '0' && *p <= '9' && count < 16; ++p, ++count, ++fraction)
      digits = digits * 10 + static_cast<std::uint64_t>(*p - '0');
  }
  if (p == end && count > 0 && count <= 15) {
    const double size = static_cast<double>(digits) / kPowers[fraction];
    return negative ? -size : size;
  }
  double value = std::numeric_limits<double>::quiet_NaN();
  if (text.empty()) return value;
  const auto result = std::from_chars(text.data(), end, value);
  if (result.ec != std::errc() || std::any_of(result.ptr, end, [](char c) { return c != ' ' && c != '"'; }))
    return std::numeric_limits<double>::quiet_NaN();
  return value;
}

/// All numbers of a (nested) JSON list, in order; null is NaN.
inline std::vector<double> scan_numbers(std::string_view list) {
  std::vector<double> out;
  std::size_t begin = 0;
  while ((begin = list.find_first_not_of("[], \t", begin)) != std::string_view::npos) {
    std::size_t end = list.find_first_of("[], \t", begin);
    if (end == std::string_view::npos) end = list.size();
    out.push_back(scan_number(list.substr(begin, end - begin)));
    begin = end;
  }
  return out;
}

/// The cells of a line of columns without blanks and quotes around them. ' ' splits at runs of blanks.
inline void split_cells(std::string_view line, char delimiter, std::vector<std::string_view>& cells) {
  cells.clear();
  while (true) {
    if (delimiter == ' ') line.remove_prefix(std::min(line.size(), line.find_first_not_of(" \t")));
    const std::size_t end = delimiter == ' ' ? line.find_first_of(" \t") : line.find(delimiter);
    std::string_view cell = line.substr(0, end);
    while (!cell.empty() && (cell.front() == ' ' || cell.front() == '"')) cell.remove_prefix(1);
    while (!cell.empty() && (cell.back() == ' ' || cell.back() == '"')) cell.remove_suffix(1);
    cells.push_back(cell);
    if (end == std::string_view::npos) return;
    line.remove_prefix(end + 1);
  }
}

/// Walks the fields of a JSON object on one line: f(key, content). Content is the text of a number, a literal, a list
/// or an object, or what stands between the quotes of a string (escapes not decoded). False when the object is not
/// complete, as in a line cut by a crash.
template <class F>
bool scan_object(std::string_view line, F&& f) {
  const char* p = line.data();
  const char* const end = p + line.size();
  const auto blanks = [&] {
    while (p < end && (*p == ' ' || *p == '\t')) ++p;
  };
  const auto string_end = [&](const char* q) {  // q behind the opening quote; returns the closing one or end
    while (q < end && *q != '"') q += *q == '\\' ? 2 : 1;
    return q < end ? q : end;
  };
  blanks();
  if (p == end || *p++ != '{') return false;
  blanks();
  if (p < end && *p == '}') return true;
  while (p < end) {
    blanks();
    if (p == end || *p != '"') return false;
    const char* const key_end = string_end(p + 1);
    const std::string_view key(p + 1, static_cast<std::size_t>(key_end - p - 1));
    p = key_end + 1;
    if (p >= end) return false;
    blanks();
    if (p == end || *p++ != ':') return false;
    blanks();
    const char* begin = p;
    const char* content_end = p;
    if (p < end && *p == '"') {
      begin = p + 1;
      content_end = string_end(begin);
      p = content_end + 1;
    } else {
      int depth = 0;
      if (p < end && *p != '[' && *p != '{') {
        while (p < end && *p != ',' && *p != '}') ++p;
      } else {
        for (; p < end; ++p) {
          if (*p == '"') {
            p = string_end(p + 1);
            if (p == end) return false;
          } else if (*p == '[' || *p == '{') {
            ++depth;
          } else if ((*p == ']' || *p == '}') && --depth == 0) {
            ++p;
            break;
          }
        }
      }
      content_end = p;
      while (content_end > begin && content_end[-1] == ' ') --content_end;
    }
    if (p >= end) return false;
    f(key, std::string_view(begin, static_cast<std::size_t>(content_end - begin)));
    blanks();
    if (p == end) return false;
    if (*p == '}') return true;
    if (*p++ != ',') return false;
  }
  return false;
}

}  // namespace nsa::report
