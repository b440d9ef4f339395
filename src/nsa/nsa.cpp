// op:: fronts of Native Sparse Attention: shapes are checked here, once, then the backend runs.
#include "nsa/ops.h"
#include "ops/dispatch.h"

namespace nsa::op {
namespace {

/// One sentence when tensor `name` of `op` is not `want`; `letters` spells the dims, so that the reader sees which size
/// is off.
void expect(const char* op, const char* name, In tensor, const Shape& want, const char* letters,
            DType type = DType::f32) {
  NSA_CHECK(tensor.shape == want, "{}: {} must be {} = {}, got {}", op, name, letters, want.str(), tensor.shape.str());
  NSA_CHECK(tensor.dtype == type, "{}: {} must hold {}, got {}", op, name, name_of(type), name_of(tensor.dtype));
}

void expect_rank(const char* op, const char* name, In tensor, int rank, const char* letters) {
  NSA_CHECK(tensor.shape.rank() == rank, "{}: {} must be {}, got {}", op, name, letters, tensor.shape.str());
}

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

Letters check_query_key(const char* op, In q, const char* key_name, In key) {
  expect_rank(op, "q", q, 4, "(B,T,H,Dk)");
  expect_rank(op, key_name, key, 4, "(B,rows,Hkv,Dk)");
  const Letters z{q.dim(0), q.dim(1), q.dim(2), key.dim(2), q.dim(3)};
  const bool positive = z.B >= 1 && z.T >= 1 && z.H >= 1 && z.Hkv >= 1 && z.Dk >= 1;
  NSA_CHECK(positive, "{}: every size must be positive, got q {} and {} {}", op, q.shape.str(), key_name,
            key.shape.str());
  NSA_CHECK(z.H % z.Hkv == 0, "{}: the {} kv heads of {} must divide the {} query heads of q", op, z.Hkv, key_name,
            z.H);
  expect(op, "q", q, {z.B, z.T, z.H, z.Dk}, "(B,T,H,Dk)");
  return z;
}

/// Dv of a value tensor that must have the rows of its keys.
std::int64_t check_value(const char* op, const char* name, In value, const Shape& key) {
  expect_rank(op, name, value, 4, "(B,rows,Hkv,Dv)");
  NSA_CHECK(value.dim(3) >= 1, "{}: {} {} has empty heads", op, name, value.shape.str());
  expect(op, name, value, {key[0], key[1], key[2], value.dim(3)}, "(B,rows,Hkv,Dv)");
  return value.dim(3);
}

void check_selected(const char* op, In selected, const Letters& z, const NsaShape& nsa) {
  expect(op, "selected", selected, {z.B, z.Hkv, z.T, nsa.n}, "(B,Hkv,T,n)", DType::i32);
}

/// Which of the weights a compressor kind has, with their shapes. E is read off w1 (linear: E = D).
void check_weights(const char* op, const CompressWeights& w, Compressor kind, const NsaShape& nsa, std::int64_t Hkv,
                   std::int64_t D) {
  const bool mlp = kind == Compressor::mlp, has_w1 = kind != Compressor::mean;
  const auto present = [](In t) { return static_cast<bool>(t); };
  const bool fits_w1 = present(w.pos) == has_w1 && present(w.w1) == has_w1,
             fits_mlp = present(w.b1) == mlp && present(w.w2) == mlp && present(w.b2) == mlp;
  NSA_CHECK(fits_w1, "{}: pos and w1 belong to the mlp and linear compressors, and to no other", op);
  NSA_CHECK(fits_mlp, "{}: b1, w2 and b2 belong to the mlp compressor, and to no other", op);
  if (!has_w1) return;
  expect_rank(op, "w1", w.w1, 3, "(Hkv,E,l*D)");
  const std::int64_t E = w.w1.dim(1);
  NSA_CHECK(E >= 1, "{}: w1 {} has no hidden units", op, w.w1.shape.str());
  NSA_CHECK(mlp || E == D, "{}: w1 of the linear compressor must have E = D = {} rows per head, got {}", op, D, E);
  expect(op, "pos", w.pos, {Hkv, nsa.l, D}, "(Hkv,l,D)");
  expect(op, "w1", w.w1, {Hkv, E, nsa.l * D}, "(Hkv,E,l*D)");
  if (!mlp) return;
  expect(op, "b1", w.b1, {Hkv, E}, "(Hkv,E)");
  expect(op, "w2", w.w2, {Hkv, D, E}, "(Hkv,D,E)");
  expect(op, "b2", w.b2, {Hkv, D}, "(Hkv,D)");
}

void check_compress(const char* op, In x, const char* c_name, In c, In hidden, const CompressWeights& weights,
                    Compressor kind, const NsaShape& nsa) {
  check_geometry(op, nsa);
  expect_rank(op, "x", x, 4, "(B,T,Hkv,D)");
  const std::int64_t B = x.dim(0), T = x.dim(1), Hkv = x.dim(2), D = x.dim(3);
  NSA_CHECK(B >= 1 && T >= 1 && Hkv >= 1 && D >= 1, "{}: every size of x must be positive, got {}", op, x.shape.str());
  expect(op, "x", x, {B, T, Hkv, D}, "(B,T,Hkv,D)");
  expect(op, c_name, c, {B, nsa.Tc(T), Hkv, D}, "(B,Tc,Hkv,D)");
  check_weights(op, weights, kind, nsa, Hkv, D);
  if (kind == Compressor::mlp)
    expect(op, "hidden", hidden, {B, nsa.Tc(T), Hkv, weights.w1.dim(1)}, "(B,Tc,Hkv,E)");
  else
    NSA_CHECK(!hidden, "{}: only the mlp compressor saves hidden, got {}", op, hidden.shape.str());
}

void check_gates(const char* op, In o, const char* o_name, In gates, In o_cmp, In o_slc, In o_win) {
  expect_rank(op, o_name, o, 3, "(N,H,Dv)");
  const std::int64_t N = o.dim(0), H = o.dim(1), Dv = o.dim(2);
  expect(op, o_name, o, {N, H, Dv}, "(N,H,Dv)");
  expect(op, "gates", gates, {N, H, 3}, "(N,H,3)");
  expect(op, "o_cmp", o_cmp, {N, H, Dv}, "(N,H,Dv)");
  expect(op, "o_slc", o_slc, {N, H, Dv}, "(N,H,Dv)");
  expect(op, "o_win", o_win, {N, H, Dv}, "(N,H,Dv)");
}

}  // namespace

void compress_forward(Device& dev, Out c, Saved hidden, In x, const CompressWeights& weights, Compressor kind,
                      const NsaShape& nsa) {
  check_compress("compress_forward", x, "c", c, hidden, weights, kind, nsa);
  NSA_DISPATCH(dev, compress_forward, c, hidden, x, weights, kind, nsa);
}

void compress_backward(Device& dev, Out dx, const CompressWeights& d_weights, In dc, In hidden, In x,
                       const CompressWeights& weights, Compressor kind, const NsaShape& nsa) {
  const char* op = "compress_backward";
  check_compress(op, x, "dc", dc, hidden, weights, kind, nsa);
  expect(op, "dx", dx, x.shape, "(B,T,Hkv,D)");
  check_weights("compress_backward, d_weights", d_weights, kind, nsa, x.dim(2), x.dim(3));
  expect(op, "the gradient of w1", d_weights.w1, weights.w1.shape, "(Hkv,E,l*D)");
  NSA_DISPATCH(dev, compress_backward, dx, d_weights, dc, hidden, x, weights, kind, nsa);
}

void attend_compressed_forward(Device& dev, Out o, Saved lse, In q, In kc, In vc, const NsaShape& nsa) {
  const char* op = "attend_compressed_forward";
  check_geometry(op, nsa);
  const Letters z = check_query_key(op, q, "kc", kc);
  expect(op, "kc", kc, {z.B, nsa.Tc(z.T), z.Hkv, z.Dk}, "(B,Tc,Hkv,Dk)");
  const std::int64_t Dv = check_value(op, "vc", vc, kc.shape);
  expect(op, "o", o, {z.B, z.T, z.H, Dv}, "(B,T,H,Dv)");
  expect(op, "lse", lse, {z.B, z.T, z.H}, "(B,T,H)");
  NSA_DISPATCH(dev, attend_compressed_forward, o, lse, q, kc, vc, nsa);
}

void attend_compressed_backward(Device& dev, Out dq, Out dkc, Out dvc, In d_o, In delta, In lse, In q, In kc, In vc,
                                const NsaShape& nsa, Write dq_mode) {
  const char* op = "attend_compressed_backward";
  check_geometry(op, nsa);
  const Letters z = check_query_key(op, q, "kc", kc);
  expect(op, "kc", kc, {z.B, nsa.Tc(z.T), z.Hkv, z.Dk}, "(B,Tc,Hkv,Dk)");
  const std::int64_t Dv = check_value(op, "vc", vc, kc.shape);
  expect(op, "dq", dq, q.shape, "(B,T,H,Dk)");
  expect(op, "dkc", dkc, kc.shape, "(B,Tc,Hkv,Dk)");
  expect(op, "dvc", dvc, vc.shape, "(B,Tc,Hkv,Dv)");
  expect(op, "d_o", d_o, {z.B, z.T, z.H, Dv}, "(B,T,H,Dv)");
  expect(op, "delta", delta, {z.B, z.T, z.H}, "(B,T,H)");
  expect(op, "lse", lse, {z.B, z.T, z.H}, "(B,T,H)");
  NSA_DISPATCH(dev, attend_compressed_backward, dq, dkc, dvc, d_o, delta, lse, q, kc, vc, nsa, dq_mode);
}

void select_blocks(Device& dev, Out selected, In q, In kc, In lse, const NsaShape& nsa) {
  const char* op = "select_blocks";
  check_geometry(op, nsa);
  const Letters z = check_query_key(op, q, "kc", kc);
  expect(op, "kc", kc, {z.B, nsa.Tc(z.T), z.Hkv, z.Dk}, "(B,Tc,Hkv,Dk)");
  expect(op, "lse", lse, {z.B, z.T, z.H}, "(B,T,H)");
  check_selected(op, selected, z, nsa);
  NSA_DISPATCH(dev, select_blocks, selected, q, kc, lse, nsa);
}

void attend_selected_forward(Device& dev, Out o, Saved lse, In q, In k, In v, In selected, const NsaShape& nsa) {
  const char* op = "attend_selected_forward";
  check_geometry(op, nsa);
  const Letters z = check_query_key(op, q, "k", k);
  expect(op, "k", k, {z.B, z.T, z.Hkv, z.Dk}, "(B,T,Hkv,Dk)");
  const std::int64_t Dv = check_value(op, "v", v, k.shape);
  check_selected(op, selected, z, nsa);
  expect(op, "o", o, {z.B, z.T, z.H, Dv}, "(B,T,H,Dv)");
  expect(op, "lse", lse, {z.B, z.T, z.H}, "(B,T,H)");
  NSA_DISPATCH(dev, attend_selected_forward, o, lse, q, k, v, selected, nsa);
}

void attend_selected_backward(Device& dev, Out dq, Out dk, Out dv, In d_o, In delta, In lse, In q, In k, In v,
                              In selected, const NsaShape& nsa, Write dq_mode) {
  const char* op = "attend_selected_backward";
  check_geometry(op, nsa);
  const Letters z = check_query_key(op, q, "k", k);
  expect(op, "k", k, {z.B, z.T, z.Hkv, z.Dk}, "(B,T,Hkv,Dk)");
  const std::int64_t Dv = check_value(op, "v", v, k.shape);
  check_selected(op, selected, z, nsa);
  expect(op, "dq", dq, q.shape, "(B,T,H,Dk)");
  expect(op, "dk", dk, k.shape, "(B,T,Hkv,Dk)");
  expect(op, "dv", dv, v.shape, "(B,T,Hkv,Dv)");
  expect(op, "d_o", d_o, {z.B, z.T, z.H, Dv}, "(B,T,H,Dv)");
  expect(op, "delta", delta, {z.B, z.T, z.H}, "(B,T,H)");
  expect(op, "lse", lse, {z.B, z.T, z.H}, "(B,T,H)");
  NSA_DISPATCH(dev, attend_selected_backward, dq, dk, dv, d_o, delta, lse, q, k, v, selected, nsa, dq_mode);
}

void gate_forward(Device& dev, Out o, InOut gates, In o_cmp, In o_slc, In o_win) {
  check_gates("gate_forward", o, "o", gates, o_cmp, o_slc, o_win);
  NSA_DISPATCH(dev, gate_forward, o, gates, o_cmp, o_slc, o_win);
}

void gate_backward(Device& dev, Out d_logits, Out delta, InOut o_cmp, InOut o_slc, InOut o_win, In gates, In d_o) {
  const char* op = "gate_backward";
  check_gates(op, d_o, "d_o", gates, o_cmp, o_slc, o_win);
  expect(op, "d_logits", d_logits, gates.shape, "(N,H,3)");
  expect(op, "delta", delta, {3, d_o.dim(0), d_o.dim(1)}, "(3,N,H)");
  NSA_DISPATCH(dev, gate_backward, d_logits, delta, o_cmp, o_slc, o_win, gates, d_o);
}

}  // namespace nsa::op
