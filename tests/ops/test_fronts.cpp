// What the checked fronts refuse, and that planning counts exactly the bytes a run takes.
#include "ops/ops.h"
#include "ref/compare.h"

using namespace nsa;
using namespace nsa::test;

namespace {

// the sentence an op fails with, "" when it does not
template <class F>
std::string sentence(F&& f) {
  try {
    f();
  } catch (const Error& e) {
    return e.what();
  }
  return "";
}
bool has(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

// every op once, computing in `type`; allocates what it needs from dev
void run_all(Device& dev, DType type) {
  const std::int64_t N = 70, I = 33, O = 20, V = 40;
  const Tensor x = random(dev, {N, I}, "x", type), w = random(dev, {O, I}, "w", type),
               y = random(dev, {N, O}, "y", type), dw = random(dev, {O, I}, "dw"), one = make(dev, {1});
  op::matmul_forward(dev, y, x, w, Write::overwrite);
  op::matmul_forward(dev, y, x, w, Write::add);
  op::matmul_backward_input(dev, x, y, w, Write::add);
  op::matmul_backward_weight(dev, dw, y, x);
  const Tensor tokens = random_ints(dev, {N}, "tokens", 0, V), e = random(dev, {V, I}, "e", type),
               de = random(dev, {V, I}, "de");
  op::embedding_forward(dev, x, tokens, e);
  op::embedding_backward(dev, de, x, tokens);
  const Tensor gain = random(dev, {I}, "gain", type), d_gain = random(dev, {I}, "d_gain"), rstd = make(dev, {N}),
               x2 = random(dev, {N, I}, "x2", type);
  op::rmsnorm_forward(dev, x2, rstd, x, gain, 1e-5f);
  op::add_rmsnorm_forward(dev, x, x2, rstd, x, x2, gain, 1e-5f);
  op::rmsnorm_backward(dev, x2, d_gain, x2, x, gain, rstd, Write::overwrite);
  const Tensor table = make(dev, {35, 5, 2}), heads = y.view({2, 35, 2, 10});
  op::rope_table(dev, table, 10000);
  op::rope_forward(dev, heads, table, 1);
  op::rope_backward(dev, heads, table, 1);
  op::swiglu_forward(dev, x2, x, x2);
  op::swiglu_backward(dev, x2, x, x2, x2, x);
  const Tensor logits = random(dev, {N, V}, "logits", type), losses = make(dev, {N});
  op::cross_entropy_forward(dev, losses, logits, tokens);
  op::cross_entropy_forward_backward(dev, losses, logits, tokens, 1);
  op::argmax_hits(dev, losses, logits, tokens);
  op::fill(dev, x2, 0);
  op::copy(dev, x2, x);
  op::add(dev, x2, x);
  const Tensor many = make(dev, {50000}), many2 = make(dev, {50000}), copy = make(dev, {50000}, DType::bf16);
  op::fill(dev, many, 1);
  op::fill(dev, many2, 1);
  op::sum(dev, one, many, Write::overwrite);
  op::sum_squares(dev, one, many, Write::add);
  op::sum_rows(dev, one, many.view({50000, 1}));
  const Tensor ranges = make(dev, {1, 2}, DType::i32);
  if (ranges.data) set(ranges, std::vector<std::int64_t>{50000 / kAdamWRange + 1, 1});
  op::adamw(dev, many, many2, many2, copy, many2, ranges, AdamWStep());
}

}  // namespace

TEST_CASE("planning counts the bytes a run takes, and leaves nothing taken") {
  for (const Kind& kind : all_kinds())
    for (int threads : {1, 2}) {
      INFO(describe(kind));
      Device plan;
      plan.where = kind.where;
      plan.threads = threads;
      run_all(plan, kind.type);
      TestDevice run(kind, threads);
      run_all(run, kind.type);
      CHECK(plan.planning());
      CHECK(!run.planning());
      CHECK(plan.work.peak() == run.work.peak());
      CHECK(plan.work.peak() > 0);
      CHECK(plan.work.used() == 0);
      CHECK(run.work.used() == 0);
      CHECK(plan.params.peak() == run.params.peak());
    }
}

TEST_CASE("wrong shapes are refused with both shapes in the sentence") {
  TestDevice dev;
  const Tensor x = random(dev, {4, 6}, "x"), w = random(dev, {3, 6}, "w"), turned = random(dev, {6, 3}, "w");
  const Tensor y = make(dev, {4, 3}), v6 = make(dev, {6}), v4 = make(dev, {4});
  const std::string s = sentence([&] { op::matmul_forward(dev, y, x, turned, Write::overwrite); });
  CHECK(has(s, "matmul_forward"));
  CHECK(has(s, "(6, 3)"));
  CHECK(has(s, "(6, 6)"));
  CHECK(has(s, "[out, in]"));
  CHECK(has(sentence([&] { op::matmul_forward(dev, x, x, w, Write::overwrite); }),
            "y is (4, 6), expected (N,O) = (4, 3)"));
  CHECK(has(sentence([&] { op::matmul_backward_weight(dev, turned, y, x); }), "dw is (6, 3), expected (O,I) = (3, 6)"));
  CHECK(has(sentence([&] { op::matmul_backward_input(dev, x, x, w, Write::add); }), "matmul_backward_input: w"));
  CHECK(has(sentence([&] { op::rmsnorm_forward(dev, x, v4, x, v4, 1e-5f); }), "w is (4), expected (C) = (6)"));
  CHECK(has(sentence([&] { op::rmsnorm_forward(dev, x, v6, x, v6, 1e-5f); }), "rstd is (6)"));
  CHECK(has(sentence([&] { op::rmsnorm_forward(dev, x, v4, x, Tensor(), 1e-5f); }), "w is absent"));
  CHECK(has(sentence([&] { op::swiglu_forward(dev, y, x, x); }), "y is (4, 3)"));
  CHECK(has(sentence([&] { op::add(dev, x, y); }), "(4, 6)"));
  CHECK(has(sentence([&] { op::sum(dev, v4, x, Write::overwrite); }), "result is (4), expected (1) = (1)"));
  CHECK(has(sentence([&] { op::adamw(dev, x, x, x, Tensor(), y, Tensor(), AdamWStep()); }), "grad is (4, 3)"));
}

TEST_CASE("wrong types, ids and positions are refused") {
  TestDevice dev;
  const Tensor w = random(dev, {5, 6}, "w"), y = make(dev, {4, 6}), floats = random(dev, {4}, "f"),
               ids = random_ints(dev, {4}, "ids", 0, 5);
  CHECK(has(sentence([&] { op::embedding_forward(dev, y, floats, w); }), "tokens holds f32, expected i32"));
  CHECK(has(sentence([&] { op::copy(dev, floats, ids); }), "x holds i32, expected f32 or bf16"));
  const Tensor half = make(dev, {4, 6}, DType::bf16);
  CHECK(has(sentence([&] { op::embedding_forward(dev, half, ids, w); }), "y holds bf16, expected f32"));
  CHECK(has(sentence([&] { op::add(dev, half, y); }), "y holds bf16, x holds f32; both must be of one type"));
  // what an op computes in is the type of its first operand; weight gradients, statistics and tables are f32
  const Tensor half_w = make(dev, {5, 6}, DType::bf16), half_y = make(dev, {4, 5}, DType::bf16), y5 = make(dev, {4, 5}),
               rstd = make(dev, {4}), half_rstd = make(dev, {4}, DType::bf16), gain = make(dev, {6}, DType::bf16);
  CHECK(
      has(sentence([&] { op::matmul_forward(dev, half_y, half, w, Write::overwrite); }), "w holds f32, expected bf16"));
  CHECK(has(sentence([&] { op::matmul_forward(dev, half_y, y, w, Write::overwrite); }), "y holds bf16, expected f32"));
  CHECK(has(sentence([&] { op::matmul_backward_input(dev, y, half_y, half_w, Write::overwrite); }),
            "dx holds f32, expected bf16"));
  CHECK(has(sentence([&] { op::matmul_backward_weight(dev, half_w, half_y, half); }), "dw holds bf16, expected f32"));
  CHECK(has(sentence([&] { op::matmul_backward_weight(dev, w, y5, half); }), "dy holds f32, expected bf16"));
  CHECK(has(sentence([&] { op::rmsnorm_forward(dev, half, half_rstd, half, gain, 1e-5f); }),
            "rstd holds bf16, expected f32"));
  CHECK(has(sentence([&] { op::rmsnorm_backward(dev, half, gain, half, half, gain, rstd, Write::overwrite); }),
            "dw holds bf16, expected f32"));
  CHECK(
      has(sentence([&] { op::cross_entropy_forward(dev, half_rstd, half, ids); }), "losses holds bf16, expected f32"));
  CHECK(has(sentence([&] { op::sum(dev, rstd.rows(0, 1), half, Write::overwrite); }), "x holds bf16, expected f32"));
  const Tensor table = make(dev, {10, 2, 2}), x = random(dev, {1, 11, 2, 4}, "x");
  op::rope_table(dev, table, 10000);
  CHECK(has(sentence([&] { op::rope_forward(dev, x, table, 1); }), "table has 10 positions"));
  CHECK(has(sentence([&] {
              op::rope_forward(dev, x.rows(0, 1).view({1, 4, 11, 2}), table, 1);
            }),
            "table is (10, 2, 2)"));
  CHECK(sentence([&] { op::rope_backward(dev, x.view({11, 1, 2, 4}), table, 5); }).empty());
  CHECK(has(sentence([&] { op::rope_forward(dev, x, table, 0); }), "stride"));
}

TEST_CASE("attention: wrong heads are refused") {
  TestDevice dev;
  const Tensor q = make(dev, {1, 3, 4, 8}), k = make(dev, {1, 3, 2, 8}), v = make(dev, {1, 3, 2, 6}),
               o = make(dev, {1, 3, 4, 6}), lse = make(dev, {1, 3, 4});
  const Tensor k3 = make(dev, {1, 3, 3, 8}), v3 = make(dev, {1, 3, 3, 6});
  CHECK(has(sentence([&] { op::attention_forward(dev, o, lse, q, k3, v3, 0); }), "H = 4 query heads on Hkv = 3"));
  CHECK(has(sentence([&] { op::attention_forward(dev, q, lse, q, k, v, 0); }),
            "o is (1, 3, 4, 8), expected (B,T,H,Dv) = (1, 3, 4, 6)"));
  CHECK(has(sentence([&] { op::attention_forward(dev, o, lse, q, k3, v, 0); }), "v is (1, 3, 2, 6)"));
  CHECK(has(sentence([&] { op::attention_delta(dev, lse, o, q); }), "d_o is (1, 3, 4, 8)"));
  CHECK(has(sentence([&] { op::attention_backward(dev, q, k, k, o, lse, lse, q, k, v, 0, Write::overwrite); }),
            "dv is (1, 3, 2, 8)"));
}
