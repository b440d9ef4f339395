// Numbers and tables for people. One spelling of a count, a size and a duration in every line the programs print.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace nsa {

/// 987, 12.3k, 4.56M, 7.89G: three significant digits.
std::string human_count(double n);
/// 987 B, 12.3 KiB, 4.56 MiB, 7.89 GiB.
std::string human_bytes(double bytes);
/// 0.4 s, 12 s, 3:07 (min:s), 2:03:07 (h:min:s), 3d 02:03 (days h:min).
std::string human_duration(double seconds);
/// 0.1234 as "12.3 %".
std::string percent(double share, int decimals = 1);
/// This moment as "2026-11-23T22:04:05Z" (ISO 8601, UTC).
std::string now_utc();
/// 12,345,678
std::string grouped(std::int64_t n);

/// Rows of cells as lines: columns padded to their widest cell, the first left-aligned, all others right-aligned;
/// `title` and `head` may be empty.
struct Table {
  std::string title;
  std::vector<std::string> head;
  std::vector<std::vector<std::string>> rows;
};
std::string to_text(const Table& table);

}  // namespace nsa
