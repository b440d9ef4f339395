// Numbers as people read them, and the ticks of an axis.
#pragma once

#include <string>
#include <vector>

namespace nsa::report {

enum class Unit { loss, whole, count, per_second, milliseconds, seconds, bytes, flops, share, plain };

/// "2.4512", "12,345", "12.3k", "3.20 GiB", "1:05:00", "41 ms" (core/text.h), a share as "12.3 %"; "–" for a number
/// that is not finite. U+2212 as minus. decimals >= 0 fixes them for Unit::loss and plain.
std::string format_value(double value, Unit unit, int decimals = -1);
/// The same with a sign, always ("+0.014"); 0 has none.
std::string format_signed(double value, Unit unit, int decimals = -1);
/// Decimals that show two digits of a standard error (4 when it is unknown or 0), within 1..6.
int decimals_for(double std_error);
struct Tick {
  double value;
  std::string text;
};
/// About `wanted` round values in [min, max]: 1, 2, 5 times a power of ten, or round times (s, min, h, d) for
/// Unit::seconds. All texts of an axis have the same unit.
std::vector<Tick> nice_ticks(double min, double max, int wanted, Unit unit);
/// 1, 2, 5 per decade or whole decades, whatever comes nearest to `wanted`; min > 0.
std::vector<Tick> log_ticks(double min, double max, int wanted);

/// & < > " as entities.
std::string escape_html(const std::string& text);
/// Number of characters (code points) of UTF-8 text.
int text_length(const std::string& text);
/// At most `limit` characters, the middle replaced by "…": names differ at their ends.
std::string shorten(const std::string& text, int limit);

}  // namespace nsa::report
