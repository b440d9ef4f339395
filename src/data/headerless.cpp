#include "data/headerless.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstddef>

#include "data/content.h"
#include "data/utf8.h"

namespace nsa::data {
namespace {

constexpr std::size_t kLanes = 4, kBins = 17;  // a wider number is 2 or 4 values; sizes of a value are powers of two
using Shares = std::array<std::array<double, kBins>, kLanes>;

/// Of the values at i % 4 == lane: which share has how many bits.
Shares shares_of(const std::vector<std::uint16_t>& tokens) {
  Shares shares{};
  std::array<double, kLanes> count{};
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    shares[i % kLanes][static_cast<std::size_t>(std::bit_width(tokens[i]))] += 1;
    count[i % kLanes] += 1;
  }
  for (std::size_t lane = 0; lane < kLanes; ++lane) {
    for (double& share : shares[lane]) share /= std::max(count[lane], 1.0);
  }
  return shares;
}

/// Half the sum of the differences: 0 for the same, 1 for disjoint.
double distance(const std::array<double, kBins>& a, const std::array<double, kBins>& b) {
  double sum = 0;
  for (std::size_t bin = 0; bin < kBins; ++bin) sum += a[bin] > b[bin] ? a[bin] - b[bin] : 0;
  return sum;
}

/// Tokens do not care whether they stand at an even place; halves and quarters of wider numbers do.
bool is_part_of_wider(const std::vector<std::uint16_t>& tokens) {
  const std::size_t n = tokens.size();
  const Shares shares = shares_of(tokens);
  if (n >= 64 * kLanes) {
    const double chance = 2.8 / std::sqrt(static_cast<double>(n / kLanes));
    for (std::size_t lane = 1; lane < kLanes; ++lane) {
      if (distance(shares[0], shares[lane]) > 0.25 + chance) return true;
    }
    return false;
  }
  const double upper = (shares[1][0] + shares[3][0]) / 2, lower = (shares[0][0] + shares[2][0]) / 2;
  return n >= 8 && upper == 1 && lower < 0.75;
}

/// Compressed data hits every value alike; the most frequent tokens of a text are a large part of it.
bool is_spread_evenly(const std::vector<std::uint16_t>& tokens) {
  constexpr std::size_t kEnough = 1 << 13;
  if (tokens.size() < kEnough) return false;
  std::vector<double> counts(1 << 16);
  for (const std::uint16_t token : tokens) counts[token] += 1;
  double pairs = 0;  // of equal tokens
  for (const double count : counts) pairs += count * (count - 1);
  const auto n = static_cast<double>(tokens.size());
  return pairs / (n * (n - 1)) < 1.2 / 65536;
}

}  // namespace

std::string foreign_content(std::string_view head) {
  if (std::string format = known_format(head); !format.empty()) return format;
  // As uint16, text would be tokens that make valid UTF-8 without a control character, thousands in a row.
  const auto is_control = [](unsigned char c) { return (c < 0x20 && (c < '\t' || c > '\r')) || c == 0x7F; };
  if (head.size() < 16 || std::any_of(head.begin(), head.end(), is_control)) return "";
  return utf8_valid_prefix(head) + utf8_unfinished_tail(head) == head.size() ? "text" : "";
}

std::string unlike_tokens(const std::vector<std::uint16_t>& tokens, std::int64_t vocab_size) {
  if (vocab_size > 65536) return fmt::format("it cannot hold a vocabulary of {}", vocab_size);
  if (is_part_of_wider(tokens))
    return "every second or fourth value is of another kind than the rest, as in wider numbers (uint32, int64, "
           "float32)";
  const auto beyond =
      std::find_if(tokens.begin(), tokens.end(), [&](std::uint16_t token) { return token >= vocab_size; });
  if (beyond != tokens.end())
    return fmt::format("number {} is {}, outside the vocabulary of {}", beyond - tokens.begin(), *beyond, vocab_size);
  // Where the vocabulary leaves out a thousandth of the values, random ones would have been seen outside.
  if (vocab_size > 65536 - 64 && is_spread_evenly(tokens))
    return "all values are equally frequent, as in compressed or encrypted data";
  return "";
}

}  // namespace nsa::data
