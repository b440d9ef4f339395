// The checked front of every op: shapes and types are looked at here and nowhere below (DESIGN law 4). Ops over rows
// take any leading dims: (B,T,C) is B*T rows of C, and backends see (N,C).
#include "ops/ops.h"

#include "ops/dispatch.h"
#include "ops/expect.h"

namespace nsa::op {
namespace {

constexpr const char* kWeights = "weights are [out, in], activations [rows, in]";
constexpr const char* kRows = "tensors of two layers or two batches mixed up?";

}  // namespace

// --- matmul --------------------------------------------------------------------------------------
void matmul_forward(Device& dev, Out y, In x, In w, Write mode) {
  const Expect expect("matmul_forward", kWeights, x, "x");
  expect.rank(w, "w", "(O,I)", 2);
  const Tensor rows = expect.rows(x, "x", "(N,I)");
  expect.dims(w, "w", "(O,I)", {w.dim(0), rows.dim(1)});
  const Expect result("matmul_forward", kWeights, y.dtype == DType::f32 ? y : x, "x");  // a sum in f32 is also right
  const Tensor out = result.rows(y, "y", "(N,O)", {rows.dim(0), w.dim(0)});
  NSA_DISPATCH(dev, matmul_forward, out, rows, w, mode);
}

void matmul_backward_input(Device& dev, Out dx, In dy, In w, Write mode) {
  const Expect expect("matmul_backward_input", kWeights, dy, "dy");
  expect.rank(w, "w", "(O,I)", 2);
  const Tensor rows = expect.rows(dy, "dy", "(N,O)");
  expect.dims(w, "w", "(O,I)", {rows.dim(1), w.dim(1)});
  const Tensor out = expect.rows(dx, "dx", "(N,I)", {rows.dim(0), w.dim(1)});
  NSA_DISPATCH(dev, matmul_backward_input, out, rows, w, mode);
}

void matmul_backward_weight(Device& dev, InOut dw, In dy, In x) {
  const Expect expect("matmul_backward_weight", kWeights, x, "x");
  const Tensor x_rows = expect.rows(x, "x", "(N,I)"), dy_rows = expect.rows(dy, "dy", "(N,O)");
  NSA_CHECK(x_rows.dim(0) == dy_rows.dim(0), "matmul_backward_weight: dy {} has {} rows, x {} has {}; {}",
            dy.shape.str(), dy_rows.dim(0), x.shape.str(), x_rows.dim(0), kRows);
  expect.dims(dw, "dw", "(O,I)", {dy_rows.dim(1), x_rows.dim(1)}, DType::f32);
  NSA_DISPATCH(dev, matmul_backward_weight, dw, dy_rows, x_rows);
}

// --- embedding -----------------------------------------------------------------------------------
void embedding_forward(Device& dev, Out y, In tokens, In w) {
  const Expect expect("embedding_forward", "w is (V,C), tokens one id per row", w, "w");
  expect.rank(w, "w", "(V,C)", 2);
  const Tensor out = expect.rows(y, "y", "(N,C)", {tokens.numel(), w.dim(1)});
  const Tensor ids = expect.per_row(tokens, "tokens", out.dim(0), DType::i32);
  NSA_DISPATCH(dev, embedding_forward, out, ids, w);
}

void embedding_backward(Device& dev, InOut dw, In dy, In tokens) {
  const Expect expect("embedding_backward", "dw is (V,C), tokens one id per row", dy, "dy");
  expect.rank(dw, "dw", "(V,C)", 2);
  expect.type(dw, "dw", DType::f32);
  const Tensor rows = expect.rows(dy, "dy", "(N,C)", {tokens.numel(), dw.dim(1)});
  const Tensor ids = expect.per_row(tokens, "tokens", rows.dim(0), DType::i32);
  NSA_DISPATCH(dev, embedding_backward, dw, rows, ids);
}

// --- RMSNorm -------------------------------------------------------------------------------------
void rmsnorm_forward(Device& dev, Out y, Saved rstd, In x, In w, float eps) {
  const Expect expect("rmsnorm_forward", "the norm is over the last dim", x, "x");
  const Tensor in = expect.rows(x, "x", "(N,C)");
  expect.dims(w, "w", "(C)", {in.dim(1)});
  NSA_DISPATCH(dev, rmsnorm_forward, expect.rows(y, "y", "(N,C)", in.shape),
               expect.per_row(rstd, "rstd", in.dim(0), DType::f32), in, w, eps);
}

void add_rmsnorm_forward(Device& dev, Out sum, Out y, Saved rstd, In a, In b, In w, float eps) {
  const Expect expect("add_rmsnorm_forward", "the norm is over the last dim", a, "a");
  const Tensor in = expect.rows(a, "a", "(N,C)");
  expect.dims(w, "w", "(C)", {in.dim(1)});
  NSA_DISPATCH(dev, add_rmsnorm_forward, expect.rows(sum, "sum", "(N,C)", in.shape),
               expect.rows(y, "y", "(N,C)", in.shape), expect.per_row(rstd, "rstd", in.dim(0), DType::f32), in,
               expect.rows(b, "b", "(N,C)", in.shape), w, eps);
}

void rmsnorm_backward(Device& dev, Out dx, InOut dw, In dy, In x, In w, In rstd, Write mode) {
  const Expect expect("rmsnorm_backward", "the norm is over the last dim", x, "x");
  const Tensor in = expect.rows(x, "x", "(N,C)");
  expect.dims(w, "w", "(C)", {in.dim(1)});
  expect.dims(dw, "dw", "(C)", {in.dim(1)}, DType::f32);
  NSA_DISPATCH(dev, rmsnorm_backward, expect.rows(dx, "dx", "(N,C)", in.shape), dw,
               expect.rows(dy, "dy", "(N,C)", in.shape), in, w, expect.per_row(rstd, "rstd", in.dim(0), DType::f32),
               mode);
}

// --- RoPE ----------------------------------------------------------------------------------------
void rope_table(Device& dev, Out table, double theta) {
  const Expect expect("rope_table", "cos and sin of every position and frequency", table, "table");
  expect.rank(table, "table", "(T,D/2,2)", 3);
  expect.dims(table, "table", "(T,D/2,2)", {table.dim(0), table.dim(1), 2}, DType::f32);
  NSA_CHECK(theta > 0, "rope_table: theta is {}, expected a positive number (10000 is usual)", theta);
  NSA_DISPATCH(dev, rope_table, table, theta);
}

namespace {

void check_rope(const char* op, In x, In table, std::int64_t stride) {
  const Expect expect(op, "x is (B,T,H,D), table from rope_table for the same D", x, "x");
  expect.rank(x, "x", "(B,T,H,D)", 4);
  expect.rank(table, "table", "(T,D/2,2)", 3);
  NSA_CHECK(x.dim(3) % 2 == 0, "{}: D is {}, expected an even head size: dims are rotated in pairs", op, x.dim(3));
  NSA_CHECK(stride >= 1, "{}: stride is {}, expected at least 1 (compress_stride for compressed keys, else 1)", op,
            stride);
  const std::int64_t positions = x.dim(1) ? (x.dim(1) - 1) * stride + 1 : 0;
  expect.dims(table, "table", "(T,D/2,2)", {table.dim(0), x.dim(3) / 2, 2}, DType::f32);
  NSA_CHECK(
      table.dim(0) >= positions,
      "{}: table has {} positions, T = {} rows at stride {} need {}; a sequence longer than the table was made for?",
      op, table.dim(0), x.dim(1), stride, positions);
}

}  // namespace

void rope_forward(Device& dev, InOut x, In table, std::int64_t stride) {
  check_rope("rope_forward", x, table, stride);
  NSA_DISPATCH(dev, rope_forward, x, table, stride);
}

void rope_backward(Device& dev, InOut dx, In table, std::int64_t stride) {
  check_rope("rope_backward", dx, table, stride);
  NSA_DISPATCH(dev, rope_backward, dx, table, stride);
}

// --- attention -----------------------------------------------------------------------------------
namespace {

void check_attention(const Expect& expect, In q, In k, In v, std::int64_t window) {
  expect.rank(q, "q", "(B,T,H,Dk)", 4);
  expect.rank(k, "k", "(B,T,Hkv,Dk)", 4);
  expect.rank(v, "v", "(B,T,Hkv,Dv)", 4);
  const std::int64_t B = q.dim(0), T = q.dim(1), H = q.dim(2), Hkv = k.dim(2);
  expect.dims(k, "k", "(B,T,Hkv,Dk)", {B, T, Hkv, q.dim(3)});
  expect.dims(v, "v", "(B,T,Hkv,Dv)", {B, T, Hkv, v.dim(3)});
  NSA_CHECK(Hkv > 0 && H % Hkv == 0, "{}: H = {} query heads on Hkv = {} key/value heads, expected Hkv to divide H",
            expect.op, H, Hkv);
  NSA_CHECK(q.dim(3) > 0 && v.dim(3) > 0, "{}: Dk = {}, Dv = {}, expected at least 1", expect.op, q.dim(3), v.dim(3));
  NSA_CHECK(window >= 0, "{}: window is {}, expected 0 (none) or the number of tokens a query sees", expect.op, window);
}

}  // namespace

void attention_forward(Device& dev, Out o, Saved lse, In q, In k, In v, std::int64_t window) {
  const Expect expect("attention_forward", kHeads, q, "q");
  check_attention(expect, q, k, v, window);
  expect.dims(o, "o", "(B,T,H,Dv)", {q.dim(0), q.dim(1), q.dim(2), v.dim(3)});
  expect.dims(lse, "lse", "(B,T,H)", {q.dim(0), q.dim(1), q.dim(2)}, DType::f32);
  NSA_DISPATCH(dev, attention_forward, o, lse, q, k, v, window);
}

void attention_delta(Device& dev, Out delta, In o, In d_o) {
  const Expect expect("attention_delta", "o and d_o are (B,T,H,Dv)", o, "o");
  expect.rank(o, "o", "(B,T,H,Dv)", 4);
  expect.same(d_o, "d_o", o, "o");
  expect.dims(delta, "delta", "(B,T,H)", {o.dim(0), o.dim(1), o.dim(2)}, DType::f32);
  NSA_DISPATCH(dev, attention_delta, delta, o, d_o);
}

void attention_backward(Device& dev, Out dq, Out dk, Out dv, In d_o, In delta, In lse, In q, In k, In v,
                        std::int64_t window, Write dq_mode) {
  const Expect expect("attention_backward", kHeads, q, "q");
  check_attention(expect, q, k, v, window);
  const Shape per_query{q.dim(0), q.dim(1), q.dim(2)};
  expect.dims(d_o, "d_o", "(B,T,H,Dv)", {q.dim(0), q.dim(1), q.dim(2), v.dim(3)});
  expect.dims(delta, "delta", "(B,T,H)", per_query, DType::f32);
  expect.dims(lse, "lse", "(B,T,H)", per_query, DType::f32);
  expect.same(dq, "dq", q, "q");
  expect.same(dk, "dk", k, "k");
  expect.same(dv, "dv", v, "v");
  NSA_DISPATCH(dev, attention_backward, dq, dk, dv, d_o, delta, lse, q, k, v, window, dq_mode);
}

// --- SwiGLU --------------------------------------------------------------------------------------
void swiglu_forward(Device& dev, Out y, In gate, In up) {
  const Expect expect("swiglu_forward", "gate and up are the two (N,F) projections", gate, "gate");
  const Tensor g = expect.rows(gate, "gate", "(N,F)");
  NSA_DISPATCH(dev, swiglu_forward, expect.rows(y, "y", "(N,F)", g.shape), g, expect.rows(up, "up", "(N,F)", g.shape));
}

void swiglu_backward(Device& dev, Out d_gate, Out d_up, In dy, In gate, In up) {
  const Expect expect("swiglu_backward", "gate and up are the two (N,F) projections", gate, "gate");
  const Tensor g = expect.rows(gate, "gate", "(N,F)");
  NSA_DISPATCH(dev, swiglu_backward, expect.rows(d_gate, "d_gate", "(N,F)", g.shape),
               expect.rows(d_up, "d_up", "(N,F)", g.shape), expect.rows(dy, "dy", "(N,F)", g.shape), g,
               expect.rows(up, "up", "(N,F)", g.shape));
}

// --- loss ----------------------------------------------------------------------------------------
void cross_entropy_forward(Device& dev, Out losses, In logits, In targets) {
  const Expect expect("cross_entropy_forward", "one target per row of logits", logits, "logits");
  const Tensor x = expect.rows(logits, "logits", "(N,V)");
  const Tensor ids = expect.per_row(targets, "targets", x.dim(0), DType::i32);
  NSA_DISPATCH(dev, cross_entropy_forward, expect.per_row(losses, "losses", x.dim(0), DType::f32), x, ids);
}

void cross_entropy_forward_backward(Device& dev, Out losses, InOut logits, In targets, float scale) {
  const Expect expect("cross_entropy_forward_backward", "one target per row of logits", logits, "logits");
  const Tensor x = expect.rows(logits, "logits", "(N,V)");
  const Tensor ids = expect.per_row(targets, "targets", x.dim(0), DType::i32);
  NSA_DISPATCH(dev, cross_entropy_forward_backward, expect.per_row(losses, "losses", x.dim(0), DType::f32), x, ids,
               scale);
}

void argmax_hits(Device& dev, Out hits, In logits, In targets) {
  const Expect expect("argmax_hits", "one target per row of logits", logits, "logits");
  const Tensor x = expect.rows(logits, "logits", "(N,V)");
  const Tensor ids = expect.per_row(targets, "targets", x.dim(0), DType::i32);
  NSA_DISPATCH(dev, argmax_hits, expect.per_row(hits, "hits", x.dim(0), DType::f32), x, ids);
}

// --- element-wise, reductions, optimizer ---------------------------------------------------------
void fill(Device& dev, Out y, float value) {
  const Expect expect("fill", "", y, "y");
  NSA_DISPATCH(dev, fill, y, value);
}

void copy(Device& dev, Out y, In x) {
  const Expect expect("copy", kRows, x, "x"), result("copy", kRows, y, "y");
  expect.same_shape(y, "y", x, "x");
  NSA_DISPATCH(dev, copy, y, x);
}

void add(Device& dev, InOut y, In x) {
  const Expect expect("add", kRows, x, "x");
  expect.same(y, "y", x, "x");
  NSA_DISPATCH(dev, add, y, x);
}

void sum_squares(Device& dev, Out result, In x, Write mode) {
  const Expect expect("sum_squares", "the result is one number", x, "x");
  expect.type(x, "x", DType::f32);
  expect.dims(result, "result", "(1)", {1}, DType::f32);
  NSA_DISPATCH(dev, sum_squares, result, x, mode);
}

void sum(Device& dev, Out result, In x, Write mode) {
  const Expect expect("sum", "the result is one number", x, "x");
  expect.type(x, "x", DType::f32);
  expect.dims(result, "result", "(1)", {1}, DType::f32);
  NSA_DISPATCH(dev, sum, result, x, mode);
}

void sum_rows(Device& dev, Out result, In x) {
  const Expect expect("sum_rows", "one sum for each of the last dim", x, "x");
  expect.type(x, "x", DType::f32);
  const Tensor rows = expect.rows(x, "x", "(N,C)");
  expect.dims(result, "result", "(C)", {rows.dim(1)});
  NSA_DISPATCH(dev, sum_rows, result, rows);
}

void adamw(Device& dev, InOut w, InOut m, InOut v, Out copy, In grad, In ranges, const AdamWStep& step) {
  const Expect expect("adamw", "m, v, grad and copy belong to the slab w, ranges to its parameters", w, "w");
  expect.type(w, "w", DType::f32);
  expect.same(m, "m", w, "w");
  expect.same(v, "v", w, "w");
  expect.same(grad, "grad", w, "w");
  if (copy) expect.dims(copy, "copy", "(n)", w.shape, DType::bf16);
  expect.rank(ranges, "ranges", "(R,2)", 2);
  expect.dims(ranges, "ranges", "(R,2)", {ranges.dim(0), 2}, DType::i32);
  NSA_DISPATCH(dev, adamw, w, m, v, copy, grad, ranges, step);
}

}  // namespace nsa::op
