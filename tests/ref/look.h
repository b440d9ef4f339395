// Reference of the looks (nsa.inc), from the probabilities and block scores of ref/nsa.h.
#pragma once

#include "ref/nsa.h"

namespace nsa::test::ref {

/// {entropy, covered, chance} from p (B,T,H,Tc) and selected (B,Hkv,T,n); NaN where no query is asked.
template <class T>
Vec<T> look_at_selection(const NsaSizes& z, const Vec<T>& p, const Ids& selected, std::int64_t every) {
  const std::int64_t Tc = z.Tc(), blocks = z.geometry.blocks(z.T), n = z.geometry.n;
  const Vec<T> score = block_scores(z, p);
  Vec<T> sum(3), terms(3);
  for (std::int64_t b = 0; b < z.B; ++b)
    for (std::int64_t t = z.T - 1; t >= 0; t -= every) {
      std::int64_t visible = 0;
      while (visible < Tc && visible * z.geometry.d + z.geometry.l - 1 <= t) ++visible;
      for (std::int64_t h = 0; h < z.H && visible >= 2; ++h) {
        T entropy(0);
        for (std::int64_t i = 0; i < visible; ++i) {
          const T x = p[((b * z.T + t) * z.H + h) * Tc + i];
          if (real_part(x) > 0) entropy -= x * std::log(x);
        }
        sum[0] += entropy / std::log(T(static_cast<double>(visible)));
        terms[0] += T(1);
      }
      for (std::int64_t j = 0; j < z.Hkv; ++j) {
        const std::int64_t row = (b * z.Hkv + j) * z.T + t, current = t / z.geometry.l_sel;
        T all(0), free(0), chosen(0);
        std::int64_t n_free = 0, n_chosen = 0;  // blocks, and free blocks that are selected
        for (std::int64_t k = 0; k <= current; ++k) {
          const T s = score[row * blocks + k];
          const bool forced = k < z.geometry.init || k > current - z.geometry.local;
          const bool is_selected = std::count(selected.begin() + row * n, selected.begin() + (row + 1) * n,
                                              static_cast<std::int32_t>(k)) > 0;
          all += s;
          if (is_selected) chosen += s;
          if (forced) continue;
          free += s;
          ++n_free;
          n_chosen += is_selected;
        }
        if (n_chosen == 0 || n_chosen == n_free) continue;
        const T drawn(static_cast<double>(n_chosen) / static_cast<double>(n_free));
        sum[1] += chosen / all, sum[2] += (all - free + free * drawn) / all;
        terms[1] += T(1), terms[2] += T(1);
      }
    }
  for (std::size_t k = 0; k < 3; ++k) sum[k] /= terms[k];  // 0 / 0 is NaN
  return sum;
}

/// {cmp, slc, win}: mean over (N,H,Dv) of the squares of gates_b * o_b; gates (N,H,3)
template <class T>
Vec<T> look_at_outputs(std::int64_t rows, std::int64_t Dv, const Vec<T>& gates, const std::vector<Vec<T>>& o) {
  Vec<T> sum(3);
  for (std::size_t b = 0; b < 3; ++b)
    for (std::int64_t k = 0; k < rows * Dv; ++k) {
      const T x = gates[k / Dv * 3 + b] * o[b][k];
      sum[b] += x * x / T(static_cast<double>(rows * Dv));
    }
  return sum;
}

}  // namespace nsa::test::ref
