// What may be said of runs that are not alike: other tokenizers, no finite loss any more, not at their end.
#include <algorithm>
#include <cmath>

#include "catch.h"
#include "report/page.h"
#include "report/synthetic.h"
#include "report/terminal.h"
#include "temp_dir.h"

using namespace nsa;
using namespace nsa::report;

namespace {

struct Made {
  TempDir dir;
  std::vector<History> runs;
  Comparison comparison;

  explicit Made(const std::vector<test::Synthetic>& all) {
    std::vector<Source> sources;
    for (const test::Synthetic& s : all) sources.push_back({test::write_run(dir.path() + "/runs", s), "", ""});
    comparison = make_report(sources, dir.path() + "/out", -1, {"2026-01-01", "nsa report"}, 1, runs);
  }
  std::string verdict() const { return verdicts(comparison).at(0); }
  std::string page() const { return read_file(dir.path() + "/out/report.html"); }
  bool noted(const std::string& text) const {
    return std::any_of(comparison.notes.begin(), comparison.notes.end(),
                       [&](const std::string& n) { return n.find(text) != std::string::npos; });
  }
  const Row* row(const std::string& label) const {
    for (const Row& r : comparison.rows) {
      if (r.label == label) return &r;
    }
    return nullptr;
  }
};

/// `name` with an end loss of `floor` and a text of `bytes` per token.
test::Synthetic made(const std::string& name, const std::string& tokenizer, double floor, double bytes) {
  test::Synthetic s;
  s.name = name;
  s.tokenizer = tokenizer;
  s.vocab = tokenizer == "bytes" ? 256 : 2048;
  s.floor = floor;
  s.bytes_per_token = bytes;
  s.steps = s.planned = 400;
  s.val_every = 100;
  return s;
}

bool has(const std::string& text, const std::string& what) { return text.find(what) != std::string::npos; }

}  // namespace

TEST_CASE("runs of different tokenizers are compared in bits per byte, in the verdict, the table and the curves") {
  // twice the loss per token on four times the text per token: half the bits per byte
  const Made m({made("bytes-seed1", "bytes", 1, 1), made("pieces-seed1", "data/p.model", 3, 4)});
  CHECK(m.comparison.measure == Measure::bits_per_byte);
  INFO(m.verdict());
  CHECK(has(m.verdict(), "pieces \u2212 bytes: bits per byte \u2212"));
  CHECK(m.comparison.rows[0].label == "bits per byte");
  CHECK(m.comparison.rows[0].differences[1].mean < 0);
  CHECK(m.row("validation loss") == nullptr);
  const Row* nats = m.row("validation loss, nats per token of its own");
  REQUIRE(nats);
  CHECK(nats->groups[1].mean > nats->groups[0].mean);
  CHECK(std::isnan(nats->differences[1].mean));
  const Row* training = m.row("training loss, smoothed, bits per byte");
  REQUIRE(training);
  CHECK(training->differences[1].mean < 0);
  CHECK(m.runs[1].smooth.back() < m.runs[0].smooth.back());
  CHECK(m.noted("different tokenizers"));
  const std::string page = m.page();
  CHECK(has(page, "loss, bits per byte"));
  CHECK_FALSE(has(page, "loss, nats per token<"));
  CHECK(has(read_file(m.dir.path() + "/out/curves.tsv"), "\tbits_per_byte\tlow"));
  CHECK(has(report_text(m.comparison, 100), "against step, bits per byte"));
}

TEST_CASE("tokenizers differ and bits per byte is missing: the page says that the runs cannot be compared") {
  const Made m({made("a-seed1", "data/a.model", 2, 0), made("b-seed1", "data/b.model", 3, 0)});
  CHECK(m.comparison.measure == Measure::none);
  INFO(m.verdict());
  CHECK(has(m.verdict(), "b \u2212 a: cannot be compared: the tokenizers differ"));
  CHECK(m.noted("cannot be compared"));
  for (const Row& row : m.comparison.rows) CHECK((row.unit != Unit::loss || std::isnan(row.differences[1].mean)));
  const std::string page = m.page();
  CHECK(has(page, "cannot be compared"));
  CHECK(has(page, "data-id=\"loss-of-0\""));
  CHECK(has(page, "data-id=\"loss-of-1\""));
  CHECK_FALSE(has(page, "data-id=\"loss\""));
  CHECK_FALSE(has(page, "data-id=\"difference\""));
  CHECK_FALSE(has(read_file(m.dir.path() + "/out/curves.tsv"), "\ndifference"));
}

TEST_CASE("only one of two tokenizers has bits per byte, and a third run shares its tokens") {
  const Made m({made("a-seed1", "data/a.model", 2, 4), made("b-seed1", "data/b.model", 3, 0),
                made("c-seed1", "data/c.model", 3, 5)});
  CHECK(m.comparison.measure == Measure::bits_per_byte);
  CHECK(has(verdicts(m.comparison)[0], "only bits per byte could decide, and b has none"));
  CHECK(has(verdicts(m.comparison)[1], "c \u2212 a: bits per byte"));
  CHECK(m.noted("Without bits per byte: b-seed1"));
}

TEST_CASE("the tokenizer's hash decides: a moved file and a padded vocabulary are the same tokens") {
  test::Synthetic a = made("a-seed1", "data/p.model", 2, 4), b = made("b-seed1", "elsewhere/p.model", 2, 4);
  b.vocab = 2176;
  CHECK(Made({a, b}).comparison.measure == Measure::bits_per_byte);  // nobody knows
  a.hash = b.hash = "00f1e2d3c4b5a697";
  CHECK(Made({a, b}).comparison.measure == Measure::nats_per_token);
  b.tokenizer = a.tokenizer;
  b.vocab = a.vocab;
  b.hash = "10f1e2d3c4b5a697";
  CHECK(Made({a, b}).comparison.measure == Measure::bits_per_byte);
}

TEST_CASE("a diverged run is a result: in the verdict, the table and the curves; the others are compared at the end") {
  std::vector<test::Synthetic> all;
  for (const char* name : {"a-seed1", "b-seed1", "a-seed2", "b-seed2", "a-seed3", "b-seed3"}) {
    all.push_back(made(name, "bytes", name[0] == 'a' ? 2 : 1.9, 1));
    all.back().seed = name[6] - '0';
    all.back().lr = name[0] == 'a' ? 1e-3 : 2e-3;  // two configurations
  }
  all[1].diverges_at = 41;
  const Made m(all);
  CHECK(m.runs[1].state == State::diverged);
  CHECK(m.runs[1].diverged_at == 41);
  INFO(m.verdict());
  CHECK(has(m.verdict(), "at step 400"));
  CHECK(has(m.verdict(), "2 seeds"));
  CHECK(has(m.verdict(), "b diverged (1 of 3 runs, the first at step 41)"));
  CHECK(m.comparison.rows[0].groups[1].n == 2);
  CHECK(m.row("steps")->groups[1].mean == 400);
  CHECK(final_table(m.comparison)[0][2].small == "3 runs, 1 diverged");
  CHECK(m.noted("Diverged: b-seed1 at step 41"));
  const std::string page = m.page();
  CHECK(has(page, "class=\"broke"));
  CHECK(has(page, ">diverged<"));
  CHECK(has(page, "Cross: the run diverged"));
}

TEST_CASE("every run of a configuration diverged: nothing of it is compared, and it is never the better one") {
  test::Synthetic a = made("a-seed1", "bytes", 2, 1), b = made("b-seed1", "bytes", 1, 1);
  b.diverges_at = 150;
  b.max_skipped = 3;
  b.lr = 1;
  const Made m({a, b});
  INFO(m.verdict());
  CHECK(m.verdict() == "b \u2212 a: b diverged at step 150: there is no loss at the end to compare.");
  const CellTable table = final_table(m.comparison);
  CHECK(table[1][0].text == "validation loss");
  CHECK(table[1][0].small == "step 400");
  CHECK(table[1][2].text == "diverged");
  CHECK(table[1][3].text == "\u2013");
  CHECK(has(report_text(m.comparison, 100), "b (diverged)"));
  CHECK(has(m.page(), "b (diverged)"));
  CHECK(has(watch_text(read_run(m.dir.path() + "/runs/b-seed1"), "b", 1, 80), "diverged at step 150"));
  CHECK(has(Made({b, a}).verdict(), "a \u2212 b: b diverged at step 150"));
  CHECK(has(Made({b}).page(), "diverged"));
}

TEST_CASE("skipped steps on the way, or fewer than the run allows at its end, are no divergence") {
  test::Synthetic few = made("few", "bytes", 2, 1);
  few.trouble = true;
  few.steps = 389;
  few.diverges_at = 380;  // ten of twenty
  CHECK(std::isnan(Made({few}).runs[0].diverged_at));
  MetricsReader reader;
  std::string text = "{\"type\":\"run\",\"config\":{\"train\":{\"steps\":9,\"max_skipped\":2}}}\n";
  for (int step = 1; step <= 4; ++step)
    text +=
        fmt::format("{{\"type\":\"step\",\"step\":{},\"loss\":{},\"skipped\":{}}}\n", step, step < 3 ? "2.5" : "2.25",
                    step < 3 ? "false" : "\"non-finite\"");  // the norm was not finite
  reader.feed(text);
  CHECK(reader.records.diverged_at() == 3);
}

TEST_CASE("a run that ended early is not compared at its last step as if that were the end") {
  test::Synthetic whole = made("a-seed1", "bytes", 2, 1), early = made("b-seed1", "bytes", 1, 1);
  early.steps = 120;
  early.lr = 1;
  for (const bool validated : {true, false}) {
    whole.val_every = early.val_every = validated ? 100 : 0;
    Made m({whole, early});
    for (History& run : m.runs) run.state = run.last_step < 400 ? State::stopped : State::finished;
    m.comparison = compare_runs(m.runs, 2, Measure::nats_per_token);
    INFO(m.verdict());
    CHECK(has(m.verdict(), validated ? "validation loss" : "training loss, smoothed"));
    CHECK(has(m.verdict(), validated ? "at step 100" : "at step 120"));
    CHECK(has(m.verdict(), "; not a final result: b stopped at step 120 of 400"));
  }
  // another seed came to its end: the early one is left out
  test::Synthetic whole2 = whole, rest = early;
  whole2.name = "a-seed2";
  rest.name = "b-seed2";
  whole2.seed = rest.seed = 2;
  rest.steps = 400;
  const Made m({whole, early, whole2, rest});
  INFO(m.verdict());
  CHECK(has(m.verdict(), "at step 400"));
  CHECK_FALSE(has(m.verdict(), "not a final"));
  CHECK(m.comparison.rows[0].groups[1].n == 1);
  CHECK(m.noted("left out of the comparison: b-seed1"));
}

TEST_CASE("validations that no step has in common are shown and not subtracted") {
  test::Synthetic a = made("a-seed1", "bytes", 2, 1), b = made("b-seed1", "bytes", 1, 1);
  a.val_every = 399;
  a.steps = a.planned = 399;
  const Made m({a, b});
  INFO(m.verdict());
  CHECK(has(m.verdict(), "training loss, smoothed"));
  REQUIRE(m.row("last validation loss"));
  CHECK(std::isnan(m.row("last validation loss")->differences[1].mean));
}

TEST_CASE("on masked data the table has the share of right answers; elsewhere it says less than the loss") {
  std::vector<test::Synthetic> all{made("full-seed1", "bytes", 1.5, 0), made("nsa-seed1", "bytes", 1.4, 0)};
  all[0].attention = "full";
  all[0].accuracy = 0.25, all[1].accuracy = 0.75;
  const Made m(all);
  const Row* row = m.row("answers right");
  REQUIRE(row);
  CHECK(row->step == 400);
  CHECK(row->groups[0].mean == Approx(0.25));
  CHECK(row->differences[1].mean == Approx(0.5));
  CHECK(has(m.page(), "answers right"));
  CHECK(has(m.verdict(), "validation loss"));
  CHECK(has(watch_text(read_run(m.dir.path() + "/runs/nsa-seed1"), "nsa", 0, 80), "75.0 % of the answers right"));

  CHECK(!Made({made("a-seed1", "bytes", 1.5, 1), made("b-seed1", "bytes", 1.4, 1)}).row("answers right"));
}
