// op:: fronts of Native Sparse Attention: shapes are checked here, once, then the backend runs.
#include "nsa/ops.h"
#include "ops/dispatch.h"
#include "ops/expect.h"

namespace nsa {

// What the dispatch seam asks of an argument that is not a tensor.
inline double tensor_bytes(const CompressWeights& w) {
  return tensor_bytes(w.pos) + tensor_bytes(w.w1) + tensor_bytes(w.b1) + tensor_bytes(w.w2) + tensor_bytes(w.b2);
}
inline void check_place(const Device& dev, const char* op, const CompressWeights& w) {
  for (const Tensor* t : {&w.pos, &w.w1, &w.b1, &w.w2, &w.b2}) check_place(dev, op, *t);
}

namespace op {
namespace {

constexpr const char* kBlocks = "x is (B,T,Hkv,D), one compressed row for each of Tc blocks";
constexpr const char* kGates = "gates are (N,H,3) in the order cmp, slc, win, branches (N,H,Dv)";

void check_geometry(const char* op, const NsaShape& s) {
  NSA_CHECK(s.d >= 1 && s.l >= s.d && s.l % s.d == 0, "{}: compress_stride d={} must divide compress_block l={}", op,
            s.d, s.l);
  NSA_CHECK(s.l_sel % s.d == 0, "{}: compress_stride d={} must divide select_block l'={}", op, s.d, s.l_sel);
  NSA_CHECK(s.l <= s.l_sel, "{}: compress_block l={} must not be larger than select_block l'={} (were they swapped?)",
            op, s.l, s.l_sel);
  NSA_CHECK(s.init >= 0, "{}: select_init={} must be at least 0", op, s.init);
  NSA_CHECK(s.local >= 1, "{}: select_local={} must be at least 1, the query's own block", op, s.local);
  NSA_CHECK(s.init + s.local <= s.n,
            "{}: select_count n={} must hold the forced blocks select_init={} + select_local={}", op, s.n, s.init,
            s.local);
  NSA_CHECK(s.w >= 1, "{}: window w={} must be at least 1, the query's own token", op, s.w);
}

/// The letters of an attention op, read off q and one key tensor; every other tensor is then checked against them.
struct Letters {
  std::int64_t B, T, H, Hkv, Dk;
};

Letters check_query_key(const Expect& expect, In q, const char* key_name, In key) {
  expect.rank(q, "q", "(B,T,H,Dk)", 4);
  expect.rank(key, key_name, "(B,rows,Hkv,Dk)", 4);
  const Letters z{q.dim(0), q.dim(1), q.dim(2), key.dim(2), q.dim(3)};
  const bool positive = z.B >= 1 && z.T >= 1 && z.H >= 1 && z.Hkv >= 1 && z.Dk >= 1;
  NSA_CHECK(positive, "{}: every size must be positive, got q {} and {} {}", expect.op, q.shape.str(), key_name,
            key.shape.str());
  NSA_CHECK(z.H % z.Hkv == 0, "{}: the {} kv heads of {} must divide the {} query heads of q", expect.op, z.Hkv,
            key_name, z.H);
  expect.dims(q, "q", "(B,T,H,Dk)", {z.B, z.T, z.H, z.Dk});
  return z;
}

/// Dv of a value tensor that must have the rows of its keys.
std::int64_t check_value(const Expect& expect, const char* name, In value, const Shape& key) {
  expect.rank(value, name, "(B,rows,Hkv,Dv)", 4);
  NSA_CHECK(value.dim(3) >= 1, "{}: {} {} has empty heads", expect.op, name, value.shape.str());
  expect.dims(value, name, "(B,rows,Hkv,Dv)", {key[0], key[1], key[2], value.dim(3)});
  return value.dim(3);
}

void check_selected(const Expect& expect, In selected, const Letters& z, const NsaShape& geometry) {
  expect.dims(selected, "selected", "(B,Hkv,T,n)", {z.B, z.Hkv, z.T, geometry.n}, DType::i32);
}

/// Which of the weights a compressor kind has, with their shapes. E is read off w1 (linear: E = D).
void check_weights(const Expect& expect, const CompressWeights& w, Compressor kind, const NsaShape& geometry,
                   std::int64_t Hkv, std::int64_t D) {
  const bool mlp = kind == Compressor::mlp, has_w1 = kind != Compressor::mean;
  const auto present = [](In t) { return static_cast<bool>(t); };
  const bool fits_w1 = present(w.pos) == has_w1 && present(w.w1) == has_w1,
             fits_mlp = present(w.b1) == mlp && present(w.w2) == mlp && present(w.b2) == mlp;
  NSA_CHECK(fits_w1, "{}: pos and w1 belong to the mlp and linear compressors, and to no other", expect.op);
  NSA_CHECK(fits_mlp, "{}: b1, w2 and b2 belong to the mlp compressor, and to no other", expect.op);
  if (!has_w1) return;
  expect.rank(w.w1, "w1", "(Hkv,E,l*D)", 3);
  const std::int64_t E = w.w1.dim(1);
  NSA_CHECK(E >= 1, "{}: w1 {} has no hidden units", expect.op, w.w1.shape.str());
  NSA_CHECK(mlp || E == D, "{}: w1 of the linear compressor must have E = D = {} rows per head, got {}", expect.op, D,
            E);
  expect.dims(w.pos, "pos", "(Hkv,l,D)", {Hkv, geometry.l, D});
  expect.dims(w.w1, "w1", "(Hkv,E,l*D)", {Hkv, E, geometry.l * D});
  if (!mlp) return;
  expect.dims(w.b1, "b1", "(Hkv,E)", {Hkv, E});
  expect.dims(w.w2, "w2", "(Hkv,D,E)", {Hkv, D, E});
  expect.dims(w.b2, "b2", "(Hkv,D)", {Hkv, D});
}

void check_compress(const Expect& expect, In x, const char* c_name, In c, In hidden, const CompressWeights& weights,
                    Compressor kind, const NsaShape& geometry) {
  check_geometry(expect.op, geometry);
  expect.rank(x, "x", "(B,T,Hkv,D)", 4);
  const std::int64_t B = x.dim(0), T = x.dim(1), Hkv = x.dim(2), D = x.dim(3);
  NSA_CHECK(B >= 1 && T >= 1 && Hkv >= 1 && D >= 1, "{}: every size of x must be positive, got {}", expect.op,
            x.shape.str());
  expect.dims(x, "x", "(B,T,Hkv,D)", {B, T, Hkv, D});
  expect.dims(c, c_name, "(B,Tc,Hkv,D)", {B, geometry.Tc(T), Hkv, D});
  check_weights(expect, weights, kind, geometry, Hkv, D);
  if (kind == Compressor::mlp)
    expect.dims(hidden, "hidden", "(B,Tc,Hkv,E)", {B, geometry.Tc(T), Hkv, weights.w1.dim(1)});
  else
    NSA_CHECK(!hidden, "{}: only the mlp compressor saves hidden, got {}", expect.op, hidden.shape.str());
}

void check_gates(const Expect& expect, In o, const char* o_name, In gates, In o_cmp, In o_slc, In o_win) {
  expect.rank(o, o_name, "(N,H,Dv)", 3);
  const std::int64_t N = o.dim(0), H = o.dim(1), Dv = o.dim(2);
  expect.dims(o, o_name, "(N,H,Dv)", {N, H, Dv});
  expect.dims(gates, "gates", "(N,H,3)", {N, H, 3}, DType::f32);
  expect.dims(o_cmp, "o_cmp", "(N,H,Dv)", {N, H, Dv});
  expect.dims(o_slc, "o_slc", "(N,H,Dv)", {N, H, Dv});
  expect.dims(o_win, "o_win", "(N,H,Dv)", {N, H, Dv});
}

}  // namespace

void compress_forward(Device& dev, Out c, Saved hidden, In x, const CompressWeights& weights, Compressor kind,
                      const NsaShape& geometry) {
  const Expect expect("compress_forward", kBlocks, x, "x");
  check_compress(expect, x, "c", c, hidden, weights, kind, geometry);
  NSA_DISPATCH(dev, compress_forward, c, hidden, x, weights, kind, geometry);
}

void compress_backward(Device& dev, Out dx, const CompressWeights& d_weights, In dc, In hidden, In x,
                       const CompressWeights& weights, Compressor kind, const NsaShape& geometry) {
  const Expect expect("compress_backward", kBlocks, x, "x");
  check_compress(expect, x, "dc", dc, hidden, weights, kind, geometry);
  expect.dims(dx, "dx", "(B,T,Hkv,D)", x.shape);
  const Expect gradients("compress_backward, d_weights", kBlocks, d_weights.w1, "w1");
  check_weights(gradients, d_weights, kind, geometry, x.dim(2), x.dim(3));
  if (d_weights.w1) gradients.dims(d_weights.w1, "w1", "(Hkv,E,l*D)", weights.w1.shape, DType::f32);
  NSA_DISPATCH(dev, compress_backward, dx, d_weights, dc, hidden, x, weights, kind, geometry);
}

void attend_compressed_forward(Device& dev, Out o, Saved lse, In q, In kc, In vc, const NsaShape& geometry) {
  const Expect expect("attend_compressed_forward", kHeads, q, "q");
  check_geometry(expect.op, geometry);
  const Letters z = check_query_key(expect, q, "kc", kc);
  expect.dims(kc, "kc", "(B,Tc,Hkv,Dk)", {z.B, geometry.Tc(z.T), z.Hkv, z.Dk});
  const std::int64_t Dv = check_value(expect, "vc", vc, kc.shape);
  expect.dims(o, "o", "(B,T,H,Dv)", {z.B, z.T, z.H, Dv});
  expect.dims(lse, "lse", "(B,T,H)", {z.B, z.T, z.H}, DType::f32);
  NSA_DISPATCH(dev, attend_compressed_forward, o, lse, q, kc, vc, geometry);
}

void attend_compressed_backward(Device& dev, Out dq, Out dkc, Out dvc, In d_o, In delta, In lse, In q, In kc, In vc,
                                const NsaShape& geometry, Write dq_mode) {
  const Expect expect("attend_compressed_backward", kHeads, q, "q");
  check_geometry(expect.op, geometry);
  const Letters z = check_query_key(expect, q, "kc", kc);
  expect.dims(kc, "kc", "(B,Tc,Hkv,Dk)", {z.B, geometry.Tc(z.T), z.Hkv, z.Dk});
  const std::int64_t Dv = check_value(expect, "vc", vc, kc.shape);
  expect.dims(dq, "dq", "(B,T,H,Dk)", q.shape);
  expect.dims(dkc, "dkc", "(B,Tc,Hkv,Dk)", kc.shape);
  expect.dims(dvc, "dvc", "(B,Tc,Hkv,Dv)", vc.shape);
  expect.dims(d_o, "d_o", "(B,T,H,Dv)", {z.B, z.T, z.H, Dv});
  expect.dims(delta, "delta", "(B,T,H)", {z.B, z.T, z.H}, DType::f32);
  expect.dims(lse, "lse", "(B,T,H)", {z.B, z.T, z.H}, DType::f32);
  NSA_DISPATCH(dev, attend_compressed_backward, dq, dkc, dvc, d_o, delta, lse, q, kc, vc, geometry, dq_mode);
}

void select_blocks(Device& dev, Out selected, In q, In kc, In lse, const NsaShape& geometry) {
  const Expect expect("select_blocks", kHeads, q, "q");
  check_geometry(expect.op, geometry);
  const Letters z = check_query_key(expect, q, "kc", kc);
  expect.dims(kc, "kc", "(B,Tc,Hkv,Dk)", {z.B, geometry.Tc(z.T), z.Hkv, z.Dk});
  expect.dims(lse, "lse", "(B,T,H)", {z.B, z.T, z.H}, DType::f32);
  check_selected(expect, selected, z, geometry);
  NSA_DISPATCH(dev, select_blocks, selected, q, kc, lse, geometry);
}

void attend_selected_forward(Device& dev, Out o, Saved lse, In q, In k, In v, In selected, const NsaShape& geometry) {
  const Expect expect("attend_selected_forward", kHeads, q, "q");
  check_geometry(expect.op, geometry);
  const Letters z = check_query_key(expect, q, "k", k);
  expect.dims(k, "k", "(B,T,Hkv,Dk)", {z.B, z.T, z.Hkv, z.Dk});
  const std::int64_t Dv = check_value(expect, "v", v, k.shape);
  check_selected(expect, selected, z, geometry);
  expect.dims(o, "o", "(B,T,H,Dv)", {z.B, z.T, z.H, Dv});
  expect.dims(lse, "lse", "(B,T,H)", {z.B, z.T, z.H}, DType::f32);
  NSA_DISPATCH(dev, attend_selected_forward, o, lse, q, k, v, selected, geometry);
}

void attend_selected_backward(Device& dev, Out dq, Out dk, Out dv, In d_o, In delta, In lse, In q, In k, In v,
                              In selected, const NsaShape& geometry, Write dq_mode) {
  const Expect expect("attend_selected_backward", kHeads, q, "q");
  check_geometry(expect.op, geometry);
  const Letters z = check_query_key(expect, q, "k", k);
  expect.dims(k, "k", "(B,T,Hkv,Dk)", {z.B, z.T, z.Hkv, z.Dk});
  const std::int64_t Dv = check_value(expect, "v", v, k.shape);
  check_selected(expect, selected, z, geometry);
  expect.dims(dq, "dq", "(B,T,H,Dk)", q.shape);
  expect.dims(dk, "dk", "(B,T,Hkv,Dk)", k.shape);
  expect.dims(dv, "dv", "(B,T,Hkv,Dv)", v.shape);
  expect.dims(d_o, "d_o", "(B,T,H,Dv)", {z.B, z.T, z.H, Dv});
  expect.dims(delta, "delta", "(B,T,H)", {z.B, z.T, z.H}, DType::f32);
  expect.dims(lse, "lse", "(B,T,H)", {z.B, z.T, z.H}, DType::f32);
  NSA_DISPATCH(dev, attend_selected_backward, dq, dk, dv, d_o, delta, lse, q, k, v, selected, geometry, dq_mode);
}

void gate_forward(Device& dev, Out o, InOut gates, In o_cmp, In o_slc, In o_win) {
  const Expect expect("gate_forward", kGates, o, "o");
  check_gates(expect, o, "o", gates, o_cmp, o_slc, o_win);
  NSA_DISPATCH(dev, gate_forward, o, gates, o_cmp, o_slc, o_win);
}

void gate_backward(Device& dev, Out d_logits, Out delta, InOut o_cmp, InOut o_slc, InOut o_win, In gates, In d_o) {
  const Expect expect("gate_backward", kGates, d_o, "d_o");
  check_gates(expect, d_o, "d_o", gates, o_cmp, o_slc, o_win);
  expect.dims(d_logits, "d_logits", "(N,H,3)", gates.shape);
  expect.dims(delta, "delta", "(3,N,H)", {3, d_o.dim(0), d_o.dim(1)}, DType::f32);
  NSA_DISPATCH(dev, gate_backward, d_logits, delta, o_cmp, o_slc, o_win, gates, d_o);
}

void look_at_selection(Device& dev, Out means, In q, In kc, In lse, In selected, const NsaShape& geometry,
                       std::int64_t every) {
  const Expect expect("look_at_selection", kHeads, q, "q");
  check_geometry(expect.op, geometry);
  NSA_CHECK(every >= 1, "{}: every={} must be at least 1, all queries", expect.op, every);
  const Letters z = check_query_key(expect, q, "kc", kc);
  expect.dims(means, "means", "(3)", {3}, DType::f32);
  expect.dims(kc, "kc", "(B,Tc,Hkv,Dk)", {z.B, geometry.Tc(z.T), z.Hkv, z.Dk});
  expect.dims(lse, "lse", "(B,T,H)", {z.B, z.T, z.H}, DType::f32);
  check_selected(expect, selected, z, geometry);
  NSA_DISPATCH(dev, look_at_selection, means, q, kc, lse, selected, geometry, every);
}

void look_at_outputs(Device& dev, Out mean_squares, In gates, In o_cmp, In o_slc, In o_win) {
  const Expect expect("look_at_outputs", kGates, o_cmp, "o_cmp");
  check_gates(expect, o_cmp, "o_cmp", gates, o_cmp, o_slc, o_win);
  expect.dims(mean_squares, "mean_squares", "(3)", {3}, DType::f32);
  NSA_DISPATCH(dev, look_at_outputs, mean_squares, gates, o_cmp, o_slc, o_win);
}

}  // namespace op
}  // namespace nsa
