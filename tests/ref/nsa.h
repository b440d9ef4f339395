// The naive reference of Native Sparse Attention, written from NSA.md step by step: T x T loops, no tiling, no tricks.
// T is float, double or std::complex<double>; the last proves every backward function by complex step (d f(x + ih) / dx
// = Im f / h), so comparisons look at the real part only and no product is conjugated. Layouts are those of
// nsa/nsa.inc. The whole layer (projections, norms, RoPE) is in ref/nsa_layer.h.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "nsa/ops.h"
#include "ref/complex_step.h"
#include "ref/ops.h"
#include "ref/rounding.h"

namespace nsa::test::ref {

/// Sizes of one attention layer; index helpers are spelled out at each use.
struct NsaSizes {
  std::int64_t B = 1, T = 1, H = 1, Hkv = 1, Dk = 1, Dv = 1;
  NsaShape geometry;
  std::int64_t G() const { return H / Hkv; }
  std::int64_t Tc() const { return geometry.Tc(T); }
};

// --- step 4: compression (Eq. 7) -----------------------------------------------------------------

template <class T>
struct CompressParams {
  Vec<T> pos, w1, b1, w2, b2;  // (Hkv,l,D) (Hkv,E,l*D) (Hkv,E) (Hkv,D,E) (Hkv,D)
};

struct CompressSizes {
  Compressor kind = Compressor::mlp;
  std::int64_t B = 1, T = 1, Hkv = 1, D = 1, E = 1;
  NsaShape geometry;
  /// All weights zero, as gradients start.
  template <class T_>
  CompressParams<T_> zeros() const {
    CompressParams<T_> w;
    if (kind == Compressor::mean) return w;
    w.pos.assign(Hkv * geometry.l * D, T_(0));
    w.w1.assign(Hkv * E * geometry.l * D, T_(0));
    if (kind == Compressor::linear) return w;
    w.b1.assign(Hkv * E, T_(0));
    w.w2.assign(Hkv * D * E, T_(0));
    w.b2.assign(Hkv * D, T_(0));
    return w;
  }
};

template <class T>
struct Compressed {
  Vec<T> c, hidden;  // (B,Tc,Hkv,D), pre-activation (B,Tc,Hkv,E)
};

/// concat_r(x_r + pos_r) of block i, as l*D numbers (pos absent for mean)
template <class T, class Store = Exact>
Vec<T> gather_block(const CompressSizes& s, const Vec<T>& x, const CompressParams<T>& w, std::int64_t b, std::int64_t i,
                    std::int64_t h, Store store = {}) {
  Vec<T> block(s.geometry.l * s.D);
  for (std::int64_t r = 0; r < s.geometry.l; ++r)
    for (std::int64_t e = 0; e < s.D; ++e) {
      block[r * s.D + e] = x[((b * s.T + i * s.geometry.d + r) * s.Hkv + h) * s.D + e];
      if (!w.pos.empty()) block[r * s.D + e] = store(block[r * s.D + e] + w.pos[(h * s.geometry.l + r) * s.D + e]);
    }
  return block;
}

template <class T, class Store = Exact>
Compressed<T> compress_forward(const CompressSizes& s, const Vec<T>& x, const CompressParams<T>& w, Store store = {}) {
  const std::int64_t Tc = s.geometry.Tc(s.T), D = s.D, E = s.E, K = s.geometry.l * D;
  Compressed<T> out;
  out.c.assign(s.B * Tc * s.Hkv * D, T(0));
  if (s.kind == Compressor::mlp) out.hidden.assign(s.B * Tc * s.Hkv * E, T(0));
  for (std::int64_t b = 0; b < s.B; ++b)
    for (std::int64_t i = 0; i < Tc; ++i)
      for (std::int64_t h = 0; h < s.Hkv; ++h) {
        const Vec<T> block = gather_block(s, x, w, b, i, h, store);
        const std::int64_t row = (b * Tc + i) * s.Hkv + h;
        T* c = &out.c[row * D];
        if (s.kind == Compressor::mean) {
          for (std::int64_t k = 0; k < K; ++k) c[k % D] += block[k] / T(static_cast<float>(s.geometry.l));
          continue;
        }
        Vec<T> z(E);
        for (std::int64_t e = 0; e < E; ++e) {
          for (std::int64_t k = 0; k < K; ++k) z[e] += w.w1[(h * E + e) * K + k] * block[k];
          if (s.kind == Compressor::mlp) z[e] = store(z[e] + w.b1[h * E + e]);
        }
        if (s.kind == Compressor::linear) {
          std::copy(z.begin(), z.end(), c);
          continue;
        }
        std::copy(z.begin(), z.end(), &out.hidden[row * E]);
        for (std::int64_t o = 0; o < D; ++o) {
          c[o] = w.b2[h * D + o];
          for (std::int64_t e = 0; e < E; ++e) c[o] += w.w2[(h * D + o) * E + e] * store(z[e] * sigmoid(z[e]));
        }
      }
  for (T& e : out.c) e = store(e);
  return out;
}

template <class T>
struct CompressGrads {
  Vec<T> dx;  // (B,T,Hkv,D)
  CompressParams<T> w;
};

template <class T, class Store = Exact>
CompressGrads<T> compress_backward(const CompressSizes& s, const Vec<T>& dc, const Vec<T>& hidden, const Vec<T>& x,
                                   const CompressParams<T>& w, Store store = {}) {
  const std::int64_t Tc = s.geometry.Tc(s.T), D = s.D, E = s.E, K = s.geometry.l * D;
  CompressGrads<T> g{Vec<T>(s.B * s.T * s.Hkv * D), s.zeros<T>()};
  for (std::int64_t b = 0; b < s.B; ++b)
    for (std::int64_t i = 0; i < Tc; ++i)
      for (std::int64_t h = 0; h < s.Hkv; ++h) {
        const Vec<T> block = gather_block(s, x, w, b, i, h, store);
        const std::int64_t row = (b * Tc + i) * s.Hkv + h;
        Vec<T> d_block(K);
        if (s.kind == Compressor::mean) {
          for (std::int64_t k = 0; k < K; ++k) d_block[k] = dc[row * D + k % D] / T(static_cast<float>(s.geometry.l));
        } else {
          Vec<T> dz(dc.begin() + row * D, dc.begin() + row * D + D);  // linear: E = D
          if (s.kind == Compressor::mlp) {
            dz.assign(E, T(0));
            for (std::int64_t e = 0; e < E; ++e) {
              const T z = hidden[row * E + e], sig = sigmoid(z);
              for (std::int64_t o = 0; o < D; ++o) {
                g.w.w2[(h * D + o) * E + e] += dc[row * D + o] * store(z * sig);
                dz[e] += dc[row * D + o] * w.w2[(h * D + o) * E + e];
              }
              dz[e] = store(store(dz[e]) * sig * (T(1) + z * (T(1) - sig)));
              g.w.b1[h * E + e] += dz[e];
            }
            for (std::int64_t o = 0; o < D; ++o) g.w.b2[h * D + o] += dc[row * D + o];
          }
          for (std::int64_t e = 0; e < E; ++e)
            for (std::int64_t k = 0; k < K; ++k) {
              g.w.w1[(h * E + e) * K + k] += dz[e] * block[k];
              d_block[k] += dz[e] * w.w1[(h * E + e) * K + k];
            }
          for (T& e : d_block) e = store(e);
          for (std::int64_t k = 0; k < K; ++k) g.w.pos[h * K + k] += d_block[k];
        }
        for (std::int64_t k = 0; k < K; ++k)
          g.dx[((b * s.T + i * s.geometry.d + k / D) * s.Hkv + h) * D + k % D] += d_block[k];
      }
  for (T& e : g.dx) e = store(e);
  return g;
}

// --- steps 5, 8, 9: the three branches are one masked attention ----------------------------------

template <class T>
struct Attended {
  Vec<T> o;    // (B,T,H,Dv), 0 for a query that sees nothing
  Vec<T> lse;  // (B,T,H), +inf for a query that sees nothing
  Vec<T> p;    // (B,T,H,S), 0 where not seen
};

/// Softmax attention over the S keys for which sees(b, t, j, s) holds (j: kv head). k (B,S,Hkv,Dk), v (B,S,Hkv,Dv).
/// `store` gets the probabilities, in attend_backward the gradient by the scores.
template <class T, class Sees, class Store = Exact>
Attended<T> attend_forward(const NsaSizes& z, std::int64_t S, const Vec<T>& q, const Vec<T>& k, const Vec<T>& v,
                           Sees sees, const Store& store = {}) {
  const T scale = T(1) / std::sqrt(T(static_cast<float>(z.Dk)));
  Attended<T> a{Vec<T>(z.B * z.T * z.H * z.Dv), Vec<T>(z.B * z.T * z.H), Vec<T>(z.B * z.T * z.H * S)};
  for (std::int64_t b = 0; b < z.B; ++b)
    for (std::int64_t t = 0; t < z.T; ++t)
      for (std::int64_t h = 0; h < z.H; ++h) {
        const std::int64_t j = h / z.G(), row = (b * z.T + t) * z.H + h;
        T* p = a.p.data() + row * S;
        T top(0), sum(0);
        bool any = false;
        for (std::int64_t s = 0; s < S; ++s) {
          if (!sees(b, t, j, s)) continue;
          for (std::int64_t e = 0; e < z.Dk; ++e) p[s] += q[row * z.Dk + e] * k[((b * S + s) * z.Hkv + j) * z.Dk + e];
          p[s] *= scale;
          if (!any || real_part(p[s]) > real_part(top)) top = p[s];
          any = true;
        }
        if (!any) {
          a.lse[row] = T(std::numeric_limits<float>::infinity());
          continue;
        }
        for (std::int64_t s = 0; s < S; ++s)
          if (sees(b, t, j, s)) sum += std::exp(p[s] - top);
        a.lse[row] = top + std::log(sum);
        for (std::int64_t s = 0; s < S; ++s) {
          if (!sees(b, t, j, s)) continue;
          p[s] = store(std::exp(p[s] - top) / sum);
          for (std::int64_t e = 0; e < z.Dv; ++e) a.o[row * z.Dv + e] += p[s] * v[((b * S + s) * z.Hkv + j) * z.Dv + e];
        }
      }
  return a;
}

template <class T>
struct AttendGrads {
  Vec<T> dq, dk, dv;
};

/// From p alone: p is 0 where not seen, so the mask is not needed again. ds = p (dp - sum p dp).
template <class T, class Store = Exact>
AttendGrads<T> attend_backward(const NsaSizes& z, std::int64_t S, const Vec<T>& d_o, const Vec<T>& p, const Vec<T>& q,
                               const Vec<T>& k, const Vec<T>& v, const Store& store = {}) {
  const T scale = T(1) / std::sqrt(T(static_cast<float>(z.Dk)));
  AttendGrads<T> g{Vec<T>(q.size()), Vec<T>(k.size()), Vec<T>(v.size())};
  Vec<T> dp(S);
  for (std::int64_t b = 0; b < z.B; ++b)
    for (std::int64_t t = 0; t < z.T; ++t)
      for (std::int64_t h = 0; h < z.H; ++h) {
        const std::int64_t j = h / z.G(), row = (b * z.T + t) * z.H + h;
        T delta(0);
        for (std::int64_t s = 0; s < S; ++s) {
          const std::int64_t key = (b * S + s) * z.Hkv + j;
          dp[s] = T(0);
          for (std::int64_t e = 0; e < z.Dv; ++e) {
            dp[s] += d_o[row * z.Dv + e] * v[key * z.Dv + e];
            g.dv[key * z.Dv + e] += p[row * S + s] * d_o[row * z.Dv + e];
          }
          delta += p[row * S + s] * dp[s];
        }
        for (std::int64_t s = 0; s < S; ++s) {
          const std::int64_t key = (b * S + s) * z.Hkv + j;
          const T ds = store(p[row * S + s] * (dp[s] - delta)) * scale;
          for (std::int64_t e = 0; e < z.Dk; ++e) {
            g.dq[row * z.Dk + e] += ds * k[key * z.Dk + e];
            g.dk[key * z.Dk + e] += ds * q[row * z.Dk + e];
          }
        }
      }
  return g;
}

/// Step 5: query t sees compressed block i iff i*d + l - 1 <= t.
template <class T, class Store = Exact>
Attended<T> attend_compressed_forward(const NsaSizes& z, const Vec<T>& q, const Vec<T>& kc, const Vec<T>& vc,
                                      const Store& store = {}) {
  const auto sees = [&](auto, std::int64_t t, auto, std::int64_t i) {
    return i * z.geometry.d + z.geometry.l - 1 <= t;
  };
  return attend_forward(z, z.Tc(), q, kc, vc, sees, store);
}

/// Step 8: tokens s <= t inside the chosen blocks; selected (B,Hkv,T,n), -1 unused.
template <class T, class Store = Exact>
Attended<T> attend_selected_forward(const NsaSizes& z, const Vec<T>& q, const Vec<T>& k, const Vec<T>& v,
                                    const Ids& selected, const Store& store = {}) {
  const auto sees = [&](std::int64_t b, std::int64_t t, std::int64_t j, std::int64_t s) {
    const auto first = selected.begin() + ((b * z.Hkv + j) * z.T + t) * z.geometry.n;
    return s <= t && std::find(first, first + z.geometry.n, static_cast<std::int32_t>(s / z.geometry.l_sel)) !=
                         first + z.geometry.n;
  };
  return attend_forward(z, z.T, q, k, v, sees, store);
}

/// Step 9: s in [max(0, t-w+1), t].
template <class T>
Attended<T> attend_window_forward(const NsaSizes& z, const Vec<T>& q, const Vec<T>& k, const Vec<T>& v) {
  return attend_forward(
      z, z.T, q, k, v, [&](auto, std::int64_t t, auto, std::int64_t s) { return t - z.geometry.w + 1 <= s && s <= t; });
}

// --- steps 6, 7: scores (Eq. 8-10) and selection (Eq. 11) ----------------------------------------

/// score (B,Hkv,T,blocks) from p (B,T,H,Tc) of the compression branch. p of a block the query does not see is 0 and so
/// is a block beyond Tc: with select_local 1 and l > d a free candidate can have such contributors.
template <class T>
Vec<T> block_scores(const NsaSizes& z, const Vec<T>& p) {
  const std::int64_t Tc = z.Tc(), blocks = z.geometry.blocks(z.T), ratio = z.geometry.l_sel / z.geometry.d;
  Vec<T> score(z.B * z.Hkv * z.T * blocks);
  for (std::int64_t b = 0; b < z.B; ++b)
    for (std::int64_t kv = 0; kv < z.Hkv; ++kv)
      for (std::int64_t t = 0; t < z.T; ++t)
        for (std::int64_t j = 0; j < blocks; ++j)
          for (std::int64_t g = 0; g < z.G(); ++g)
            for (std::int64_t m = 0; m < ratio; ++m)
              for (std::int64_t r = 0; r < z.geometry.l / z.geometry.d; ++r) {
                const std::int64_t i = ratio * j + m - r;
                if (i < 0 || i >= Tc) continue;
                score[((b * z.Hkv + kv) * z.T + t) * blocks + j] += p[((b * z.T + t) * z.H + kv * z.G() + g) * Tc + i];
              }
  return score;
}

/// selected (B,Hkv,T,n), ascending, -1 unused.
template <class T>
Ids select_blocks(const NsaSizes& z, const Vec<T>& score) {
  const std::int64_t blocks = z.geometry.blocks(z.T), n = z.geometry.n;
  Ids selected(z.B * z.Hkv * z.T * n, -1);
  for (std::int64_t row = 0; row < z.B * z.Hkv * z.T; ++row) {
    const std::int64_t c = row % z.T / z.geometry.l_sel;
    Ids chosen, free;
    for (std::int64_t j = 0; j <= c; ++j) {
      const bool forced = j < z.geometry.init || j >= c - z.geometry.local + 1;
      (forced ? chosen : free).push_back(static_cast<std::int32_t>(j));
    }
    const auto score_of = [&](std::int32_t j) { return real_part(score[row * blocks + j]); };
    std::stable_sort(free.begin(), free.end(),
                     [&](std::int32_t a, std::int32_t b) { return score_of(a) > score_of(b); });
    for (std::int32_t j : free)
      if (static_cast<std::int64_t>(chosen.size()) < n) chosen.push_back(j);
    std::sort(chosen.begin(), chosen.end());
    std::copy(chosen.begin(), chosen.end(), selected.begin() + row * n);
  }
  return selected;
}

// --- step 10: gates (Eq. 5) ----------------------------------------------------------------------

/// o (N,H,Dv) = sum_b gates_b o_b; gates (N,H,3) are sigmoids already. rows = N*H.
template <class T>
Vec<T> gate_forward(std::int64_t rows, std::int64_t Dv, const Vec<T>& gates, const Vec<T>& o_cmp, const Vec<T>& o_slc,
                    const Vec<T>& o_win) {
  Vec<T> o(rows * Dv);
  for (std::int64_t k = 0; k < rows * Dv; ++k) {
    const T* g = &gates[k / Dv * 3];
    o[k] = g[0] * o_cmp[k] + g[1] * o_slc[k] + g[2] * o_win[k];
  }
  return o;
}

template <class T>
struct GateGrads {
  Vec<T> d_logits;                   // (N,H,3)
  Vec<T> delta;                      // (3,N,H): gates_b * d_gates_b
  Vec<T> d_o_cmp, d_o_slc, d_o_win;  // (N,H,Dv)
};

template <class T>
GateGrads<T> gate_backward(std::int64_t rows, std::int64_t Dv, const Vec<T>& d_o, const Vec<T>& gates,
                           const Vec<T>& o_cmp, const Vec<T>& o_slc, const Vec<T>& o_win) {
  GateGrads<T> g{Vec<T>(rows * 3), Vec<T>(rows * 3), Vec<T>(rows * Dv), Vec<T>(rows * Dv), Vec<T>(rows * Dv)};
  const Vec<T>* o[3] = {&o_cmp, &o_slc, &o_win};
  Vec<T>* d[3] = {&g.d_o_cmp, &g.d_o_slc, &g.d_o_win};
  for (std::int64_t row = 0; row < rows; ++row)
    for (int branch = 0; branch < 3; ++branch) {
      const T gate = gates[row * 3 + branch];
      T d_gate(0);
      for (std::int64_t e = 0; e < Dv; ++e) {
        d_gate += d_o[row * Dv + e] * (*o[branch])[row * Dv + e];
        (*d[branch])[row * Dv + e] = gate * d_o[row * Dv + e];
      }
      g.d_logits[row * 3 + branch] = d_gate * gate * (T(1) - gate);
      g.delta[branch * rows + row] = gate * d_gate;
    }
  return g;
}

}  // namespace nsa::test::ref
