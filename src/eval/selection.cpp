#include "eval/selection.h"

#include <algorithm>
#include <cmath>
#include <set>
#include <vector>

#include "core/transfer.h"

namespace nsa {

namespace {

// Scores closer than this (relative to the larger) cannot be told apart after a float32 forward pass.
constexpr double kTie = 1e-4;

std::string listed(const std::int32_t* row, std::int64_t n) {
  std::string s;
  for (std::int64_t i = 0; i < n; ++i) s += (i ? " " : "") + std::to_string(row[i]);
  return s;
}

// score[j] of query t for one kv head: probabilities of its G heads over the visible compressed blocks, folded onto
// select blocks (Eq. 9, 10).
std::vector<double> scores_of(const NsaAttention::Saved& s, const std::vector<float>& queries,
                              const std::vector<float>& keys, const NsaShape& geometry, std::int64_t b, std::int64_t kv,
                              std::int64_t t) {
  const std::int64_t T = s.q.dim(1), H = s.q.dim(2), D = s.q.dim(3), Tc = s.kc.dim(1), Hkv = s.kc.dim(2), G = H / Hkv,
                     visible = geometry.visible(t);
  std::vector<double> p_sum(static_cast<std::size_t>(visible), 0.0), p(p_sum.size());
  for (std::int64_t h = kv * G; h < (kv + 1) * G && visible; ++h) {
    const float* q = queries.data() + ((b * T + t) * H + h) * D;
    for (std::int64_t i = 0; i < visible; ++i) {
      const float* k = keys.data() + ((b * Tc + i) * Hkv + kv) * D;
      double dot = 0;
      for (std::int64_t x = 0; x < D; ++x) dot += static_cast<double>(q[x]) * static_cast<double>(k[x]);
      p[static_cast<std::size_t>(i)] = dot / std::sqrt(static_cast<double>(D));
    }
    const double max = *std::max_element(p.begin(), p.end());
    double sum = 0;
    for (double& v : p) sum += v = std::exp(v - max);
    for (std::size_t i = 0; i < p.size(); ++i) p_sum[i] += p[i] / sum;
  }
  const std::int64_t per_block = geometry.l_sel / geometry.d, per_compressed = geometry.l / geometry.d;
  std::vector<double> score(static_cast<std::size_t>(t / geometry.l_sel + 1), 0.0);
  for (std::size_t j = 0; j < score.size(); ++j)
    for (std::int64_t m = 0; m < per_block; ++m)
      for (std::int64_t r = 0; r < per_compressed; ++r) {
        const std::int64_t i = per_block * static_cast<std::int64_t>(j) + m - r;
        if (i >= 0 && i < visible) score[j] += p_sum[static_cast<std::size_t>(i)];
      }
  return score;
}

// Every block that only one side chose must score the same as one only the other side chose, and both sides must choose
// as many.
bool is_tie(const std::vector<double>& score, const std::int32_t* got, const std::int32_t* want, std::int64_t n) {
  const std::set<std::int32_t> a(got, got + n), b(want, want + n);
  std::vector<double> only_a, only_b;
  for (std::int32_t j : a) {
    if (j >= static_cast<std::int32_t>(score.size()) || j < -1) return false;
    if (!b.count(j) && j >= 0) only_a.push_back(score[static_cast<std::size_t>(j)]);
  }
  for (std::int32_t j : b) {
    if (!a.count(j) && j >= 0) only_b.push_back(score[static_cast<std::size_t>(j)]);
  }
  if (only_a.size() != only_b.size() || only_a.empty()) return false;
  const double low =
      std::min(*std::min_element(only_a.begin(), only_a.end()), *std::min_element(only_b.begin(), only_b.end()));
  const double high =
      std::max(*std::max_element(only_a.begin(), only_a.end()), *std::max_element(only_b.begin(), only_b.end()));
  return high - low <= kTie * high;
}

}  // namespace

SelectionResult compare_selection(const NsaAttention::Saved& s, In want, const NsaShape& geometry) {
  NSA_CHECK(want.shape == s.selected.shape, "verify: selected has shape {} in the file, {} is computed",
            want.shape.str(), s.selected.shape.str());
  const std::int64_t Hkv = want.dim(1), T = want.dim(2), n = want.dim(3), rows = want.numel() / n;
  std::int64_t ties = 0, wrong = 0;
  SelectionResult result;
  const std::vector<std::int32_t> computed = downloaded<std::int32_t>(s.selected);
  const std::vector<float> queries = downloaded_floats(s.q), keys = downloaded_floats(s.kc);
  for (std::int64_t row = 0; row < rows; ++row) {
    const std::int32_t *got = computed.data() + row * n, *expected = want.i32() + row * n;
    if (std::equal(got, got + n, expected)) continue;
    const std::int64_t t = row % T, kv = row / T % Hkv, b = row / T / Hkv;
    if (is_tie(scores_of(s, queries, keys, geometry, b, kv, t), got, expected, n)) {
      ++ties;
    } else if (wrong++ == 0) {
      result.worst = fmt::format("[{}, {}, {}]: got {}, expected {}", b, kv, t, listed(got, n), listed(expected, n));
    }
  }
  result.wrong = static_cast<double>(wrong) / static_cast<double>(std::max<std::int64_t>(rows, 1));
  result.note = ties ? fmt::format("{} of {} rows differ by a tie", ties, rows) : wrong ? "" : "exact";
  return result;
}

}  // namespace nsa
