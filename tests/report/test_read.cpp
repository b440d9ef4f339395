#include "report/read.h"

#include <unistd.h>

#include <cmath>
#include <cstdlib>
#include <filesystem>

#include "catch.h"
#include "core/check.h"
#include "report/scan.h"
#include "report/synthetic.h"

using namespace nsa;
using namespace nsa::report;

namespace {

Records read_text(const std::string& text, char delimiter = 0) {
  MetricsReader reader(delimiter);
  reader.feed(text);
  reader.finish();
  return reader.records;
}

/// The sentence of the error, "" when there is none.
std::string error_of(const std::string& path) {
  try {
    read_run(path);
  } catch (const Error& e) {
    return e.what();
  }
  return {};
}

const std::string kStep1 = R"({"type":"step","step":1,"loss":3.5,"grad_norm":1.25,"lr":1e-3,"seconds":0.5})"
                           "\n";
const std::string kStep2 = R"({"type":"step","step":2,"loss":3.25})"
                           "\n";

}  // namespace

TEST_CASE("numbers are read as strtod reads them") {
  for (const char* text : {"0", "1", "-1.5", "3.14159265358979", "3.1415926535897931", "123456789012345678", "1e-3",
                           "-2.5E+10", "0.1", "0.000001", "1e308", "5e-324", "9007199254740993"}) {
    INFO(text);
    CHECK(scan_number(text) == std::strtod(text, nullptr));
  }
  CHECK(scan_number(" 2.5 ") == 2.5);
  CHECK(scan_number("\"7\"") == 7);
  for (const char* text : {"", "null", "abc", "1x", "-", ".", "1..2", "true"}) {
    INFO(text);
    CHECK(std::isnan(scan_number(text)));
  }
  CHECK(std::isinf(scan_number("Infinity")));
}

TEST_CASE("records of metrics.jsonl") {
  const Records run =
      read_text(R"({"type":"run","version":"0.1","command":"nsa train \"a\".json",)"
                R"("config":{"train":{"tokens":1000,"batch_tokens":300,"seed":7},)"
                R"("data":{"val":["a","b"]}},"parameters":12,"resumed_from":0})"
                "\n" +
                kStep1 +
                R"({"type":"val","step":1,"tokens":9,"loss":3.75,"bits_per_byte":1.5,"val_accuracy":0.25,"counted":8})"
                "\n"
                R"({"type":"gates","step":1,"layers":[[0.1,0.2,0.3],[0.4,null,0.6]]})"
                "\n"
                R"({"type":"gates","step":2,"layers":[[0.1,0.2,0.3]],"entropy":[0.75],)"
                R"("coverage":[[null,0.25]],"output_rms":[[1,2,1]],"output_share":[[0.25,0.5,0.25]]})"
                "\n"
                R"({"type":"checkpoint","step":1,"path":"runs/x/checkpoints/step_00000001","ms":12})"
                "\n"
                R"({"type":"sample","step":1,"text":"a \"quoted\" {brace] and a \\ end"})"
                "\n" +
                kStep2);
  CHECK(run.info.config_value("train.seed") == "7");
  CHECK(run.info.config_value("data.val") == "[\"a\",\"b\"]");
  CHECK(run.info.command == "nsa train \"a\".json");
  CHECK(run.info.planned_steps() == 4);
  CHECK(run.info.parameters == 12);
  REQUIRE(run.steps.size() == 2);
  CHECK(run.steps[0].grad_norm == 1.25);
  CHECK(run.steps[0].lr == 1e-3);
  CHECK(std::isnan(run.steps[1].grad_norm));
  REQUIRE(run.vals.size() == 1);
  CHECK(run.vals[0].seconds == 0.5);  // of the step it describes
  CHECK(run.vals[0].accuracy == 0.25);
  CHECK(run.vals[0].counted == 8);
  REQUIRE(run.gates.size() == 2);
  CHECK(run.gates[0].layers[1][2] == 0.6f);
  CHECK(std::isnan(run.gates[0].layers[1][1]));
  CHECK(run.gates[0].shares.empty());
  CHECK(run.gates[1].entropy[0][0] == 0.75f);
  CHECK(std::isnan(run.gates[1].coverage[0][0]));
  CHECK(run.gates[1].coverage[0][1] == 0.25f);
  CHECK(run.gates[1].shares == std::vector<std::array<float, 3>>{{0.25f, 0.5f, 0.25f}});
  CHECK(run.checkpoints[0].path == "runs/x/checkpoints/step_00000001");
  CHECK(run.last_sample == "a \"quoted\" {brace] and a \\ end");
  CHECK(run.broken_lines == 0);
}

TEST_CASE("a file cut at any byte gives its complete lines") {
  test::Synthetic s;
  s.steps = 12;
  s.val_every = 5;
  const std::string text = test::metrics_text(s);
  for (std::size_t cut = 0; cut <= text.size(); ++cut) {
    const Records run = read_text(text.substr(0, cut));
    const std::string whole = text.substr(
        0, text.rfind('\n', cut ? cut - 1 : 0) == std::string::npos ? 0 : text.rfind('\n', cut ? cut - 1 : 0) + 1);
    REQUIRE(run.broken_lines == 0);
    REQUIRE(run.steps.size() >= read_text(whole).steps.size());
    REQUIRE(run.steps.size() <= read_text(whole).steps.size() + 1);  // complete but for its newline
    for (const StepPoint& step : run.steps) REQUIRE(step.loss > 1);
  }
}

TEST_CASE("pieces of any size read like the whole") {
  test::Synthetic s;
  s.steps = 50;
  s.trouble = true;
  const std::string text = test::metrics_text(s);
  for (const std::size_t piece : {1u, 7u, 100u, 1000u}) {
    MetricsReader reader;
    for (std::size_t i = 0; i < text.size(); i += piece) reader.feed(std::string_view(text).substr(i, piece));
    reader.finish();
    REQUIRE(reader.records.steps.size() == 50);
    CHECK(reader.records.steps[49].loss == read_text(text).steps[49].loss);
    CHECK(reader.records.broken_lines == 0);
  }
}

TEST_CASE("steps written again after a resume replace the old ones") {
  const Records run = read_text(kStep1 + kStep2 +
                                R"({"type":"val","step":2,"loss":9})"
                                "\n"
                                R"({"type":"step","step":3,"loss":99})"
                                "\n"
                                R"({"type":"run","resumed_from":1})"
                                "\n"
                                R"({"type":"step","step":2,"loss":3.0})"
                                "\n");
  REQUIRE(run.steps.size() == 2);
  CHECK(run.steps[1].loss == 3.0);
  CHECK(run.vals.empty());
  CHECK(run.info.launches == 1);
  const Records unannounced = read_text(kStep1 + kStep2 +
                                        R"({"type":"step","step":2,"loss":3.0})"
                                        "\n");
  REQUIRE(unannounced.steps.size() == 2);
  CHECK(unannounced.steps[1].loss == 3.0);
}

TEST_CASE("null is NaN, skipped is seen, broken lines are counted and passed over") {
  const Records run = read_text(kStep1 + "{\"type\":\"step\",\"st\n" + "garbage\n\n" +
                                R"({"type":"step","step":2,"loss":null,"skipped":true})"
                                "\r\n" +
                                R"({"type":"step","step":3,"loss":NaN})"
                                "\n" +
                                R"({"type":"future","step":3,"x":{"y":[1]}})"
                                "\n");
  REQUIRE(run.steps.size() == 3);
  CHECK(std::isnan(run.steps[1].loss));
  CHECK(run.steps[1].skipped);
  CHECK(std::isnan(run.steps[2].loss));
  CHECK(run.broken_lines == 2);
  CHECK(run.first_broken_line == 2);
}

TEST_CASE("step,loss files of other programs") {
  CHECK(detect_delimiter("{\"step\":1}") == 0);
  CHECK(detect_delimiter("step\tloss\n1,2") == '\t');
  CHECK(detect_delimiter("step, loss") == ',');
  CHECK(detect_delimiter("1 2.5\n") == ' ');
  const Records tsv = read_text("step\tloss\n10\t3.5\n20\tnan\n30\t2.5", '\t');
  REQUIRE(tsv.steps.size() == 3);
  CHECK(tsv.steps[2].loss == 2.5);
  CHECK(std::isnan(tsv.steps[1].loss));
  const Records csv =
      read_text("\"iter\", \"time\", \"train_loss\", \"val_loss\"\n1, 0.5, 3.5,\n2, 1.0, 3.0, 3.25\n", ',');
  REQUIRE(csv.steps.size() == 2);
  CHECK(csv.steps[1].seconds == 1.0);
  REQUIRE(csv.vals.size() == 1);
  CHECK(csv.vals[0].loss == 3.25);
  const Records bare = read_text("# a comment of the other program\n1   4.0\n 2 3.0\n", ' ');
  REQUIRE(bare.steps.size() == 2);
  CHECK(bare.steps[1].loss == 3.0);
  const Records json = read_text(
      "{\"global_step\": 5, \"train/loss\": 2.0}\n{\"global_step\": 3, \"train/loss\": 2.5}\n{\"global_step\": 5, "
      "\"train/loss\": 1.5}\n{\"global_step\": 5, "
      "\"val/loss\": 1.75}\n");
  REQUIRE(json.steps.size() == 2);  // sorted, the last word about step 5 wins
  CHECK(json.steps[0].step == 3);
  CHECK(json.steps[1].loss == 1.5);
  CHECK(json.vals[0].loss == 1.75);
}

TEST_CASE("what cannot be read is an error that says so") {
  const std::string folder = (std::filesystem::temp_directory_path() / fmt::format("nsa_read_{}", ::getpid())).string();
  make_folders(folder + "/empty_run");
  write_file_atomic(folder + "/prose.txt", "this is not\na table of numbers\n");
  CHECK(error_of(folder + "/nothing").find("cannot read the run") != std::string::npos);
  CHECK(error_of(folder + "/empty_run").find("no metrics.jsonl") != std::string::npos);
  CHECK(error_of(folder + "/prose.txt").find("holds no record") != std::string::npos);
  std::filesystem::remove_all(folder);
}
