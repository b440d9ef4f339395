// The naive reference of causal attention, with or without a sliding window: T x T loops over (B,T,H,D) vectors, no
// tiling. T is float, double or std::complex<double>; with the last, its backward is proven by complex step
// (test_attention.cpp). `store` gets the probabilities, the gradient by the scores and, in backward, o: what a plain
// program stores between its products.
#pragma once

#include <cmath>
#include <cstdint>
#include <vector>

#include "ref/complex_step.h"
#include "ref/rounding.h"

namespace nsa::ref {

struct AttentionSizes {
  std::int64_t B = 1, T = 1, H = 1, Hkv = 1, Dk = 1, Dv = 1, window = 0;
  std::int64_t query(std::int64_t b, std::int64_t t, std::int64_t h) const {
    return (b * T + t) * H + h;
  }  ///< row of q, o
  std::int64_t key(std::int64_t b, std::int64_t s, std::int64_t h) const {
    return (b * T + s) * Hkv + h / (H / Hkv);
  }  ///< row of k, v, for query head h
  std::int64_t first_key(std::int64_t t) const { return window > 0 && t >= window ? t - window + 1 : 0; }
};

template <class T>
struct AttentionOutputs {
  std::vector<T> o, lse;  // (B,T,H,Dv), (B,T,H)
};

template <class T>
struct AttentionGradients {
  std::vector<T> dq, dk, dv;
};

template <class T>
T dot(const T* a, const T* b, std::int64_t n) {
  T sum(0);
  for (std::int64_t i = 0; i < n; ++i) sum += a[i] * b[i];
  return sum;
}

/// Probabilities p[s - first_key(t)] of query (b, t, h); returns the log of the sum.
template <class T>
T attention_row(const AttentionSizes& z, const std::vector<T>& q, const std::vector<T>& k, std::int64_t b,
                std::int64_t t, std::int64_t h, std::vector<T>& p) {
  const std::int64_t first = z.first_key(t);
  p.assign(static_cast<std::size_t>(t - first + 1), T(0));
  for (std::int64_t s = first; s <= t; ++s)
    p[s - first] =
        dot(&q[z.query(b, t, h) * z.Dk], &k[z.key(b, s, h) * z.Dk], z.Dk) / T(std::sqrt(static_cast<double>(z.Dk)));
  T largest = p[0], sum(0);
  for (const T& x : p) largest = test::max_real(largest, x);
  for (T& x : p) sum += x = std::exp(x - largest);
  for (T& x : p) x /= sum;
  return largest + std::log(sum);
}

template <class T, class Store = test::Exact>
AttentionOutputs<T> attention_forward(const AttentionSizes& z, const std::vector<T>& q, const std::vector<T>& k,
                                      const std::vector<T>& v, const Store& store = {}) {
  AttentionOutputs<T> y{std::vector<T>(z.B * z.T * z.H * z.Dv), std::vector<T>(z.B * z.T * z.H)};
  std::vector<T> p;
  for (std::int64_t b = 0; b < z.B; ++b)
    for (std::int64_t t = 0; t < z.T; ++t)
      for (std::int64_t h = 0; h < z.H; ++h) {
        const std::int64_t n = z.query(b, t, h), first = z.first_key(t);
        y.lse[n] = attention_row(z, q, k, b, t, h, p);
        for (std::int64_t s = first; s <= t; ++s)
          for (std::int64_t i = 0; i < z.Dv; ++i)
            y.o[n * z.Dv + i] += store(p[s - first]) * v[z.key(b, s, h) * z.Dv + i];
      }
  return y;
}

/// dS = P (dP - delta), dP = dO V^T, delta = sum over Dv of o dO (which is sum_s P dP); dQ = dS K / sqrt(Dk), dK = dS^T
/// Q / sqrt(Dk), dV = P^T dO.
template <class T, class Store = test::Exact>
AttentionGradients<T> attention_backward(const AttentionSizes& z, const std::vector<T>& d_o, const std::vector<T>& q,
                                         const std::vector<T>& k, const std::vector<T>& v, const Store& store = {}) {
  AttentionGradients<T> g{std::vector<T>(q.size()), std::vector<T>(k.size()), std::vector<T>(v.size())};
  const T scale = T(1) / T(std::sqrt(static_cast<double>(z.Dk)));
  std::vector<T> p, dp;
  for (std::int64_t b = 0; b < z.B; ++b)
    for (std::int64_t t = 0; t < z.T; ++t)
      for (std::int64_t h = 0; h < z.H; ++h) {
        const std::int64_t n = z.query(b, t, h), first = z.first_key(t);
        attention_row(z, q, k, b, t, h, p);
        for (T& x : p) x = store(x);
        dp.assign(p.size(), T(0));
        for (std::int64_t s = first; s <= t; ++s) dp[s - first] = dot(&d_o[n * z.Dv], &v[z.key(b, s, h) * z.Dv], z.Dv);
        T delta(0);
        for (std::int64_t i = 0; i < z.Dv; ++i) {
          T o(0);
          for (std::int64_t s = first; s <= t; ++s) o += p[s - first] * v[z.key(b, s, h) * z.Dv + i];
          delta += store(o) * d_o[n * z.Dv + i];
        }
        for (std::int64_t s = first; s <= t; ++s) {
          const std::int64_t m = z.key(b, s, h);
          const T ds = store(p[s - first] * (dp[s - first] - delta)) * scale;
          for (std::int64_t i = 0; i < z.Dk; ++i) {
            g.dq[n * z.Dk + i] += ds * k[m * z.Dk + i];
            g.dk[m * z.Dk + i] += ds * q[n * z.Dk + i];
          }
          for (std::int64_t i = 0; i < z.Dv; ++i) g.dv[m * z.Dv + i] += p[s - first] * d_o[n * z.Dv + i];
        }
      }
  return g;
}

}  // namespace nsa::ref
