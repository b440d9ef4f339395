// Naive references of the ops outside attention, forward and backward, templated on T: float, double,
// std::complex<double>. Formulas as on paper, one loop per index, no blocking. A backward is proven from its forward by
// complex step (tests/ops/test_reference.cpp); comparisons look at real parts only.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "ops/types.h"
#include "ref/complex_step.h"

namespace nsa::test::ref {

template <class T>
using Vec = std::vector<T>;
using Ids = std::vector<std::int32_t>;

// --- matmul: y (N,O) = x (N,I) w (O,I)^T
template <class T>
Vec<T> matmul_forward(const Vec<T>& x, const Vec<T>& w, std::size_t N, std::size_t I, std::size_t O) {
  Vec<T> y(N * O, T(0));
  for (std::size_t n = 0; n < N; ++n)
    for (std::size_t o = 0; o < O; ++o)
      for (std::size_t i = 0; i < I; ++i) y[n * O + o] += x[n * I + i] * w[o * I + i];
  return y;
}
template <class T>
Vec<T> matmul_backward_input(const Vec<T>& dy, const Vec<T>& w, std::size_t N, std::size_t I, std::size_t O) {
  Vec<T> dx(N * I, T(0));
  for (std::size_t n = 0; n < N; ++n)
    for (std::size_t o = 0; o < O; ++o)
      for (std::size_t i = 0; i < I; ++i) dx[n * I + i] += dy[n * O + o] * w[o * I + i];
  return dx;
}
template <class T>
Vec<T> matmul_backward_weight(const Vec<T>& dy, const Vec<T>& x, std::size_t N, std::size_t I, std::size_t O) {
  Vec<T> dw(O * I, T(0));
  for (std::size_t n = 0; n < N; ++n)
    for (std::size_t o = 0; o < O; ++o)
      for (std::size_t i = 0; i < I; ++i) dw[o * I + i] += dy[n * O + o] * x[n * I + i];
  return dw;
}

// --- embedding: y (N,C) = w (V,C)[tokens]
template <class T>
Vec<T> embedding_forward(const Vec<T>& w, const Ids& tokens, std::size_t C) {
  Vec<T> y(tokens.size() * C);
  for (std::size_t n = 0; n < tokens.size(); ++n)
    for (std::size_t c = 0; c < C; ++c) y[n * C + c] = w[static_cast<std::size_t>(tokens[n]) * C + c];
  return y;
}
template <class T>
Vec<T> embedding_backward(const Vec<T>& dy, const Ids& tokens, std::size_t V, std::size_t C) {
  Vec<T> dw(V * C, T(0));
  for (std::size_t n = 0; n < tokens.size(); ++n)
    for (std::size_t c = 0; c < C; ++c) dw[static_cast<std::size_t>(tokens[n]) * C + c] += dy[n * C + c];
  return dw;
}

// --- RMSNorm: y = w x rstd, rstd = 1/sqrt(mean(x^2) + eps)
template <class T>
Vec<T> rmsnorm_rstd(const Vec<T>& x, std::size_t C, double eps) {
  Vec<T> rstd(x.size() / C);
  for (std::size_t n = 0; n < rstd.size(); ++n) {
    T mean(0);
    for (std::size_t c = 0; c < C; ++c) mean += x[n * C + c] * x[n * C + c] / T(static_cast<double>(C));
    rstd[n] = T(1) / std::sqrt(mean + T(eps));
  }
  return rstd;
}
template <class T>
Vec<T> rmsnorm_forward(const Vec<T>& x, const Vec<T>& w, double eps) {
  const std::size_t C = w.size();
  const Vec<T> rstd = rmsnorm_rstd(x, C, eps);
  Vec<T> y(x.size());
  for (std::size_t i = 0; i < x.size(); ++i) y[i] = w[i % C] * x[i] * rstd[i / C];
  return y;
}
template <class T>
struct NormGradients {
  Vec<T> dx, dw;
};
template <class T>
NormGradients<T> rmsnorm_backward(const Vec<T>& dy, const Vec<T>& x, const Vec<T>& w, double eps) {
  const std::size_t C = w.size();
  const Vec<T> rstd = rmsnorm_rstd(x, C, eps);
  NormGradients<T> g{Vec<T>(x.size()), Vec<T>(C, T(0))};
  for (std::size_t n = 0; n < rstd.size(); ++n) {
    T dot(0);
    for (std::size_t c = 0; c < C; ++c) dot += w[c] * dy[n * C + c] * x[n * C + c];
    for (std::size_t c = 0; c < C; ++c) {
      const T x_nc = x[n * C + c];
      g.dx[n * C + c] =
          rstd[n] * w[c] * dy[n * C + c] - x_nc * dot * rstd[n] * rstd[n] * rstd[n] / T(static_cast<double>(C));
      g.dw[c] += dy[n * C + c] * x_nc * rstd[n];
    }
  }
  return g;
}

// --- RoPE: pairs (i, i + D/2) of x (B,T,H,D) turn by t * stride * theta^(-2i/D); sign -1 is the inverse
template <class T>
Vec<T> rope(const Vec<T>& x, std::size_t n_time, std::size_t H, std::size_t D, std::size_t stride, double theta,
            double sign = 1) {
  Vec<T> y(x.size());
  for (std::size_t row = 0; row < x.size() / D; ++row)
    for (std::size_t i = 0; i < D / 2; ++i) {
      const double t = static_cast<double>(row / H % n_time * stride);
      const double angle = sign * t * std::pow(theta, -2.0 * static_cast<double>(i) / static_cast<double>(D));
      const T a = x[row * D + i], b = x[row * D + i + D / 2];
      y[row * D + i] = a * T(std::cos(angle)) - b * T(std::sin(angle));
      y[row * D + i + D / 2] = b * T(std::cos(angle)) + a * T(std::sin(angle));
    }
  return y;
}

// --- SwiGLU: y = silu(gate) * up
template <class T>
T sigmoid(const T& x) {
  return T(1) / (T(1) + std::exp(-x));
}
template <class T>
Vec<T> swiglu_forward(const Vec<T>& gate, const Vec<T>& up) {
  Vec<T> y(gate.size());
  for (std::size_t i = 0; i < y.size(); ++i) y[i] = gate[i] * sigmoid(gate[i]) * up[i];
  return y;
}
template <class T>
struct SwigluGradients {
  Vec<T> d_gate, d_up;
};
template <class T>
SwigluGradients<T> swiglu_backward(const Vec<T>& dy, const Vec<T>& gate, const Vec<T>& up) {
  SwigluGradients<T> g{Vec<T>(dy.size()), Vec<T>(dy.size())};
  for (std::size_t i = 0; i < dy.size(); ++i) {
    const T s = sigmoid(gate[i]);
    g.d_gate[i] = dy[i] * up[i] * (s + gate[i] * s * (T(1) - s));
    g.d_up[i] = dy[i] * gate[i] * s;
  }
  return g;
}

// --- cross-entropy: losses (N) = -log softmax(logits (N,V))[targets], 0 for a target of -1
template <class T>
Vec<T> cross_entropy_forward(const Vec<T>& logits, const Ids& targets, std::size_t V) {
  Vec<T> losses(targets.size(), T(0));
  for (std::size_t n = 0; n < targets.size(); ++n) {
    if (targets[n] < 0) continue;
    T most = logits[n * V], sum(0);
    for (std::size_t v = 0; v < V; ++v) most = max_real(most, logits[n * V + v]);
    for (std::size_t v = 0; v < V; ++v) sum += std::exp(logits[n * V + v] - most);
    losses[n] = std::log(sum) + most - logits[n * V + static_cast<std::size_t>(targets[n])];
  }
  return losses;
}
/// hits (N) = 1 where no logit is above that of the target and none before it is equal
template <class T>
Vec<T> argmax_hits(const Vec<T>& logits, const Ids& targets, std::size_t V) {
  Vec<T> hits(targets.size(), T(0));
  for (std::size_t n = 0; n < targets.size(); ++n) {
    if (targets[n] < 0) continue;
    const auto row = logits.begin() + static_cast<std::ptrdiff_t>(n * V);
    hits[n] = T(std::max_element(row, row + static_cast<std::ptrdiff_t>(V)) - row == targets[n]);
  }
  return hits;
}
/// scale * d losses / d logits
template <class T>
Vec<T> cross_entropy_backward(const Vec<T>& logits, const Ids& targets, std::size_t V, double scale) {
  const Vec<T> losses = cross_entropy_forward(logits, targets, V);
  Vec<T> d(logits.size(), T(0));
  for (std::size_t n = 0; n < targets.size(); ++n) {
    if (targets[n] < 0) continue;
    const std::size_t target = n * V + static_cast<std::size_t>(targets[n]);
    for (std::size_t v = 0; v < V; ++v)
      d[n * V + v] = T(scale) * std::exp(logits[n * V + v] - logits[target] - losses[n]);
    d[target] -= T(scale);
  }
  return d;
}

// --- AdamW: arXiv 1711.05101, algorithm 2, with the gradient scaled first
template <class T>
void adamw(Vec<T>& w, Vec<T>& m, Vec<T>& v, const Vec<T>& grad, const AdamWStep& s) {
  for (std::size_t i = 0; i < w.size(); ++i) {
    const T g = T(s.grad_scale) * grad[i];
    m[i] = T(s.beta1) * m[i] + T(s.rest1) * g;
    v[i] = T(s.beta2) * v[i] + T(s.rest2) * g * g;
    w[i] -= T(s.lr) * (m[i] * T(s.m_scale) / (std::sqrt(v[i] * T(s.v_scale)) + T(s.eps)) + T(s.weight_decay) * w[i]);
  }
}

}  // namespace nsa::test::ref
