// The reference is what every kernel is measured against, so it is itself proven twice: its backward by complex step,
// its forward and gradients by the golden files, computed by an independent implementation.
#include "core/safetensors.h"
#include "eval/golden_config.h"
#include "ref/nsa_layer.h"
#include "places.h"

using namespace nsa;
using namespace nsa::test;

namespace {

std::vector<double> normal(std::int64_t n, const std::string& name, double scale = 1) {
  const Rng rng(7, name);
  std::vector<double> v(static_cast<std::size_t>(n));
  for (std::size_t i = 0; i < v.size(); ++i) v[i] = scale * rng.normal(i);
  return v;
}

/// (B,H,T,D), as golden files store it, from (B,T,H,D)
std::vector<double> heads_first(const std::vector<double>& x, std::int64_t B, std::int64_t T, std::int64_t H) {
  const std::int64_t D = static_cast<std::int64_t>(x.size()) / (B * T * H);
  std::vector<double> y(x.size());
  for (std::int64_t b = 0; b < B; ++b)
    for (std::int64_t t = 0; t < T; ++t)
      for (std::int64_t h = 0; h < H; ++h) std::copy_n(&x[((b * T + t) * H + h) * D], D, &y[((b * H + h) * T + t) * D]);
  return y;
}

// --- golden files --------------------------------------------------------------------------------

constexpr double kStored = 1e-6;  // golden inputs and outputs are rounded to float32

struct Golden {
  SafetensorsReader file;
  ref::NsaLayer layer;
  ref::NamedValues<double> params;
  std::vector<double> x;
  explicit Golden(const std::string& name)
      : file(std::string(kSourceDir) + "/tests/golden/" + name + ".safetensors"),
        layer(read_golden_config(file).model, file.at("x").dim(0), file.at("x").dim(1)),
        x(values(file.at("x"))) {
    for (const auto& [key, tensor] : file.tensors())
      if (key.rfind("param.", 0) == 0) params[key.substr(6)] = values(tensor);
  }
};

TEST_CASE("golden: the reference layer and every gradient", "[reference]") {
  const std::string name = GENERATE("nsa_small", "nsa_short", "nsa_linear", "nsa_qk_norm", "nsa_fla_mode",
                                    "nsa_ragged_g16", "nsa_paper_blocks");
  INFO(name);
  const Golden golden(name);
  const auto& z = golden.layer.z;
  const auto f = ref::layer_forward(golden.layer, golden.x, golden.params);
  CHECK(f.selected == ints(golden.file.at("selected")));
  check_close("y", f.y, values(golden.file.at("y")), kStored);
  const char* const outputs[] = {"o_cmp", "o_slc", "o_win"};
  for (std::size_t b = 0; b < 3; ++b)
    check_close(outputs[b], heads_first(f.branch[b].o, z.B, z.T, z.H), values(golden.file.at(outputs[b])), kStored);
  check_close("gates", heads_first(f.gates, z.B, z.T, z.H), values(golden.file.at("gates")), kStored);

  const auto g = ref::layer_backward(golden.layer, values(golden.file.at("dy")), golden.x, golden.params, f);
  check_close("dx", g.dx, values(golden.file.at("dx")), kStored);
  CHECK(g.params.size() == golden.params.size());
  for (const auto& [key, grad] : g.params) check_close(key, grad, values(golden.file.at("grad." + key)), kStored);
}

TEST_CASE("golden: scores of the neighbour block select other blocks", "[reference]") {
  for (const char* name : {"nsa_small", "nsa_linear", "nsa_paper_blocks"}) {
    INFO(name);
    const Golden golden(name);
    const auto& z = golden.layer.z;
    auto f = ref::layer_forward(golden.layer, golden.x, golden.params);
    const std::int64_t blocks = z.geometry.blocks(z.T);
    std::vector<double> shifted(f.score.size());
    for (std::int64_t k = 0; k < static_cast<std::int64_t>(shifted.size()); ++k)
      shifted[k] = k % blocks ? f.score[k - 1] : 0;
    CHECK(ref::select_blocks(z, shifted) != ints(golden.file.at("selected")));
  }
}

// --- complex step --------------------------------------------------------------------------------

ref::CompressParams<Complex> lift_params(const ref::CompressParams<double>& w) {
  return {lift(w.pos), lift(w.w1), lift(w.b1), lift(w.w2), lift(w.b2)};
}

TEST_CASE("complex step: compression", "[reference]") {
  for (Compressor kind : {Compressor::mlp, Compressor::linear, Compressor::mean})
    for (std::int64_t d : {2, 4}) {
      INFO("kind " << static_cast<int>(kind) << " d " << d);
      const ref::CompressSizes s{kind, 2, 11, 2, 3, kind == Compressor::mlp ? 4 : 3, {4, d, 8, 3, 1, 1, 5}};
      ref::CompressParams<double> w = s.zeros<double>();
      for (auto* part : {&w.pos, &w.w1, &w.b1, &w.w2, &w.b2})
        *part = normal(static_cast<std::int64_t>(part->size()), "w" + std::to_string(part - &w.pos), 0.5);
      const auto x = normal(s.B * s.T * s.Hkv * s.D, "x"), dc = normal(s.B * s.geometry.Tc(s.T) * s.Hkv * s.D, "dc");
      const auto f = ref::compress_forward(s, x, w);
      const auto g = ref::compress_backward(s, dc, f.hidden, x, w);
      check_gradient("dx", g.dx, x,
                     [&](const auto& xc) { return weighted_sum(ref::compress_forward(s, xc, lift_params(w)).c, dc); });
      const auto check_part = [&](const char* name, auto part) {
        check_gradient(name, g.w.*part.first, w.*part.first, [&](const auto& pc) {
          auto wc = lift_params(w);
          wc.*part.second = pc;
          return weighted_sum(ref::compress_forward(s, lift(x), wc).c, dc);
        });
      };
      using D = ref::CompressParams<double>;
      using Z = ref::CompressParams<Complex>;
      check_part("pos", std::pair(&D::pos, &Z::pos));
      check_part("w1", std::pair(&D::w1, &Z::w1));
      check_part("b1", std::pair(&D::b1, &Z::b1));
      check_part("w2", std::pair(&D::w2, &Z::w2));
      check_part("b2", std::pair(&D::b2, &Z::b2));
    }
}

/// forward(q, k, v) -> Attended of one branch over S keys
template <class F>
void check_attend(const ref::NsaSizes& z, std::int64_t S, F&& forward) {
  const auto q = normal(z.B * z.T * z.H * z.Dk, "q"), d_o = normal(z.B * z.T * z.H * z.Dv, "d_o");
  const auto k = normal(z.B * S * z.Hkv * z.Dk, "k"), v = normal(z.B * S * z.Hkv * z.Dv, "v");
  const auto g = ref::attend_backward(z, S, d_o, forward(q, k, v).p, q, k, v);
  check_gradient("dq", g.dq, q, [&](const auto& qc) { return weighted_sum(forward(qc, lift(k), lift(v)).o, d_o); });
  check_gradient("dk", g.dk, k, [&](const auto& kc) { return weighted_sum(forward(lift(q), kc, lift(v)).o, d_o); });
  check_gradient("dv", g.dv, v, [&](const auto& vc) { return weighted_sum(forward(lift(q), lift(k), vc).o, d_o); });
}

const ref::NsaSizes kSmall{2, 13, 4, 2, 4, 3, {4, 2, 4, 2, 0, 1, 5}};

TEST_CASE("complex step: the three branches", "[reference]") {
  const ref::NsaSizes& z = kSmall;
  check_attend(z, z.Tc(),
               [&](const auto& q, const auto& k, const auto& v) { return ref::attend_compressed_forward(z, q, k, v); });
  check_attend(z, z.T,
               [&](const auto& q, const auto& k, const auto& v) { return ref::attend_window_forward(z, q, k, v); });
  const auto q = normal(z.B * z.T * z.H * z.Dk, "q"), kc = normal(z.B * z.Tc() * z.Hkv * z.Dk, "kc"),
             vc = normal(z.B * z.Tc() * z.Hkv * z.Dv, "vc");
  const auto selected = ref::select_blocks(z, ref::block_scores(z, ref::attend_compressed_forward(z, q, kc, vc).p));
  check_attend(z, z.T, [&](const auto& qs, const auto& k, const auto& v) {
    return ref::attend_selected_forward(z, qs, k, v, selected);
  });
}

TEST_CASE("complex step: gates", "[reference]") {
  const std::int64_t rows = 6, Dv = 3;
  const auto logits = normal(rows * 3, "logits"), d_o = normal(rows * Dv, "d_o");
  const auto a = normal(rows * Dv, "a"), b = normal(rows * Dv, "b"), c = normal(rows * Dv, "c");
  const auto open = [](auto gates) {
    for (auto& g : gates) g = ref::sigmoid(g);
    return gates;
  };
  const auto g = ref::gate_backward(rows, Dv, d_o, open(logits), a, b, c);
  const auto o = [&](const auto& l, const auto& x, const auto& y, const auto& z) {
    return weighted_sum(ref::gate_forward(rows, Dv, open(l), x, y, z), d_o);
  };
  check_gradient("logits", g.d_logits, logits, [&](const auto& l) { return o(l, lift(a), lift(b), lift(c)); });
  check_gradient("o_cmp", g.d_o_cmp, a, [&](const auto& x) { return o(lift(logits), x, lift(b), lift(c)); });
  check_gradient("o_slc", g.d_o_slc, b, [&](const auto& x) { return o(lift(logits), lift(a), x, lift(c)); });
  check_gradient("o_win", g.d_o_win, c, [&](const auto& x) { return o(lift(logits), lift(a), lift(b), x); });
  // delta is the softmax delta of each branch: the dot product of its output and its gradient
  const std::vector<double>*outs[] = {&a, &b, &c}, *grads[] = {&g.d_o_cmp, &g.d_o_slc, &g.d_o_win};
  for (std::int64_t branch = 0; branch < 3; ++branch)
    for (std::int64_t row = 0; row < rows; ++row) {
      double dot = 0;
      for (std::int64_t e = 0; e < Dv; ++e) dot += (*outs[branch])[row * Dv + e] * (*grads[branch])[row * Dv + e];
      CHECK(g.delta[branch * rows + row] == Approx(dot));
    }
}

ModelConfig tiny_model(Compressor compressor, bool qk_norm, bool shared_kv, bool rope_before) {
  ModelConfig m;
  m.hidden_size = 5;
  AttentionConfig& a = m.attention;
  a.num_heads = 2, a.num_kv_heads = 1, a.head_dim = 4, a.v_head_dim = 3;
  a.compress_block = 4, a.compress_stride = 2, a.select_block = 4, a.select_count = 2, a.select_init = 0,
  a.select_local = 1, a.window = 3;
  a.compressor = compressor, a.qk_norm = qk_norm, a.shared_kv = shared_kv, a.rope_before_compress = rope_before;
  return m;
}

ref::NamedValues<double> tiny_params(const ref::NsaLayer& s) {
  const auto& z = s.z;
  ref::NamedValues<double> p;
  const auto add = [&](const std::string& name, std::int64_t n) { p[name] = normal(n, name, 0.6); };
  add("q_proj.weight", z.H * z.Dk * s.C());
  add("o_proj.weight", z.H * z.Dv * s.C());
  add("g_proj.weight", z.H * 3 * s.C());
  for (int b = 0; b < 3; ++b) {
    add(s.projection("k", b), z.Hkv * z.Dk * s.C());
    add(s.projection("v", b), z.Hkv * z.Dv * s.C());
  }
  if (s.model.attention.qk_norm)
    for (const char* name : {"q_norm", "k_norm_cmp", "k_norm_slc", "k_norm_win"})
      add(std::string(name) + ".weight", z.Dk);
  for (const auto& [name, sizes] : {std::pair("compress_k", s.keys), std::pair("compress_v", s.values)}) {
    ref::store_compressor_grads(p, name, sizes.zeros<double>());
    for (const char* part : {".pos", ".w1", ".b1", ".w2", ".b2"})
      if (p.count(std::string(name) + part))
        add(std::string(name) + part, static_cast<std::int64_t>(p.at(std::string(name) + part).size()));
  }
  return p;
}

TEST_CASE("complex step: the whole layer, every parameter", "[reference]") {
  const ModelConfig models[] = {
      tiny_model(Compressor::mlp, true, false, false), tiny_model(Compressor::mean, true, true, true),
      tiny_model(Compressor::linear, false, true, false), tiny_model(Compressor::mlp, false, false, true)};
  for (const ModelConfig& m : models) {
    const ref::NsaLayer s(m, 1, 11);
    const auto p = tiny_params(s);
    const auto x = normal(s.N() * s.C(), "x"), dy = normal(s.N() * s.C(), "dy");
    const auto f = ref::layer_forward(s, x, p);
    const auto g = ref::layer_backward(s, dy, x, p, f);
    ref::NamedValues<Complex> pc;
    for (const auto& [name, value] : p) pc[name] = lift(value);
    check_gradient("x", g.dx, x,
                   [&](const auto& xc) { return weighted_sum(ref::layer_forward(s, xc, pc, f.selected).y, dy); });
    CHECK(g.params.size() == p.size());
    for (const auto& [name, value] : p) {
      check_gradient(name, g.params.at(name), value, [&, key = name](const auto& vc) {
        auto changed = pc;
        changed[key] = vc;
        return weighted_sum(ref::layer_forward(s, lift(x), changed, f.selected).y, dy);
      });
    }
  }
}

// --- equalities ----------------------------------------------------------------------------------

TEST_CASE("a window of T and a selection of everything are full attention; nothing visible is 0", "[reference]") {
  ref::NsaSizes z{1, 19, 4, 2, 4, 3, {8, 4, 8, 3, 1, 2, 19}};
  const auto q = normal(z.T * z.H * z.Dk, "q"), k = normal(z.T * z.Hkv * z.Dk, "k"),
             v = normal(z.T * z.Hkv * z.Dv, "v");
  const auto full =
      ref::attend_forward(z, z.T, q, k, v, [](auto, std::int64_t t, auto, std::int64_t s) { return s <= t; });
  check_close("window", ref::attend_window_forward(z, q, k, v).o, full.o, 0);
  const auto kc = normal(z.Tc() * z.Hkv * z.Dk, "kc"), vc = normal(z.Tc() * z.Hkv * z.Dv, "vc");
  const auto cmp = ref::attend_compressed_forward(z, q, kc, vc);
  const auto selected = ref::select_blocks(z, ref::block_scores(z, cmp.p));
  check_close("selected", ref::attend_selected_forward(z, q, k, v, selected).o, full.o, 0);
  for (std::int64_t i = 0; i < (z.geometry.l - 1) * z.H * z.Dv; ++i) CHECK(cmp.o[i] == 0);
  CHECK(std::isinf(cmp.lse[(z.geometry.l - 1) * z.H - 1]));
  CHECK(std::isfinite(cmp.lse[(z.geometry.l - 1) * z.H]));
}

TEST_CASE("scores at 32/16/64 are p[4j-1] + 2p[4j] + 2p[4j+1] + 2p[4j+2] + p[4j+3]; ties go to the lower index",
          "[reference]") {
  ref::NsaSizes z{1, 512, 1, 1, 1, 1, {32, 16, 64, 4, 1, 2, 1}};
  const std::int64_t Tc = z.Tc(), blocks = z.geometry.blocks(z.T);
  auto p = normal(z.T * Tc, "p");
  const auto score = ref::block_scores(z, p);
  for (std::int64_t t : {0, 300, 511})
    for (std::int64_t j = 0; j < blocks; ++j) {
      const auto at = [&](std::int64_t i) { return 0 <= i && i < Tc ? p[t * Tc + i] : 0.0; };
      CHECK(score[t * blocks + j] ==
            Approx(at(4 * j - 1) + 2 * (at(4 * j) + at(4 * j + 1) + at(4 * j + 2)) + at(4 * j + 3)));
    }
  const auto tied = ref::select_blocks(z, std::vector<double>(z.T * blocks, 0.25));
  CHECK(std::vector<std::int32_t>(tied.end() - 4, tied.end()) == std::vector<std::int32_t>{0, 1, 6, 7});
  CHECK(std::vector<std::int32_t>(tied.begin(), tied.begin() + 4) == std::vector<std::int32_t>{0, -1, -1, -1});
  CHECK(std::vector<std::int32_t>(tied.begin() + 130 * 4, tied.begin() + 131 * 4) ==
        std::vector<std::int32_t>{0, 1, 2, -1});
}

}  // namespace
