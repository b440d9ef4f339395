// metrics.jsonl, the event file and the console line, read back.
#include <filesystem>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>

#include "catch.h"
#include "core/check.h"
#include "core/file.h"
#include "temp_dir.h"
#include "train/log.h"
#include "train/metrics.h"
#include "train/tensorboard.h"

using namespace nsa;
using nlohmann::json;

namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

std::vector<json> lines_of(const std::string& path) {
  std::vector<json> records;
  std::ifstream in(path);
  for (std::string line; std::getline(in, line);) records.push_back(json::parse(line));
  return records;
}

StepRecord step_record(std::int64_t step) {
  StepRecord r;
  r.step = step;
  r.tokens = 64 * step;
  r.step_tokens = 64;
  r.loss = 5.0 - static_cast<double>(step);
  r.grad_norm = 1.5;
  r.lr = 1e-3;
  r.ms = 20;
  r.seconds = 0.02 * static_cast<double>(step);
  return r;
}

RunRecord run_record(std::int64_t resumed_from) {
  RunRecord r;
  r.command = "nsa train x.json";
  r.config = R"({"model": {"hidden_size": 64}})";
  r.parameters = 1000;
  r.flops_per_token = 1e6;
  r.peak_gflops = 10;
  r.tokenizer_hash = 0xab;
  r.bytes_per_token = 4.5;
  r.resumed_from = resumed_from;
  return r;
}

/// Splits an event file into payloads, checking both checksums of every record.
std::vector<std::string> tf_payloads(const std::string& bytes) {
  std::vector<std::string> payloads;
  for (std::size_t at = 0; at < bytes.size();) {
    std::uint64_t n = 0;
    REQUIRE(at + 16 <= bytes.size());
    std::memcpy(&n, bytes.data() + at, 8);
    REQUIRE(at + 16 + n <= bytes.size());
    payloads.push_back(bytes.substr(at + 12, n));
    CHECK(tf_record(payloads.back()) == bytes.substr(at, 16 + n));
    at += 16 + n;
  }
  return payloads;
}

std::string event_file(const std::string& dir) {
  for (const auto& entry : std::filesystem::directory_iterator(dir)) {
    if (entry.path().filename().string().rfind("events.out.tfevents.", 0) == 0) return entry.path().string();
  }
  return "";
}

}  // namespace

TEST_CASE("metrics.jsonl has the documented fields, and null for what is not finite") {
  TempDir dir;
  {
    RunLog log({dir.path(), 10, 1, false, false});
    log.start(run_record(0));
    log.step(step_record(1));
    StepRecord bad = step_record(2);
    bad.loss = kNan;
    bad.z_norm = 3.5;
    bad.skipped = "non-finite";
    log.step(bad);
    log.val({2, 128, 4.0, 5.77, 0});
    LayerLook all, none;
    all.gate = {0.1, 0.2, 1.0 / 3}, all.rms = {0.02, 0.05, 0.03};
    all.entropy = 0.875, all.covered = 0.5, all.chance = 0.25;
    none.gate = {0.4, 0.5, kNan}, none.entropy = none.covered = none.chance = kNan;
    log.gates(2, {all, none});
    log.checkpoint(2, "runs/x/checkpoints/step_00000002", 12.5);
    log.sample(2, "caf\xC3\xA9 \xFF");
  }
  const auto r = lines_of(dir.path() + "/metrics.jsonl");
  REQUIRE(r.size() == 7);
  CHECK(r[0]["type"] == "run");
  for (const char* field : {"version", "commit", "command", "machine", "date"}) CHECK(r[0][field].is_string());
  CHECK(r[0]["config"]["model"]["hidden_size"] == 64);
  CHECK(r[0]["parameters"] == 1000);
  CHECK(r[0]["tokenizer_hash"] == "00000000000000ab");
  CHECK(r[0]["bytes_per_token"] == 4.5);
  CHECK(json_line(RunRecord{}).find("tokenizer_hash") == std::string::npos);
  CHECK(r[0]["resumed_from"] == 0);
  CHECK(r[1]["step"] == 1);
  CHECK(r[1]["tokens"] == 64);
  CHECK(r[1]["loss"] == 4.0);
  CHECK(r[1]["tokens_per_s"].get<double>() == Approx(3200));
  CHECK(r[1]["share_of_peak"].get<double>() == Approx(0.32));  // 3200 tok/s * 1e6 FLOP over 10 GFLOP/s
  CHECK(r[1]["skipped"] == false);
  CHECK_FALSE(r[1].contains("z_loss"));
  CHECK_FALSE(r[1].contains("reason"));
  CHECK(r[2]["loss"].is_null());
  CHECK(r[2]["z_norm"] == 3.5);
  CHECK(r[2]["skipped"] == true);
  CHECK(r[2]["reason"] == "non-finite");
  CHECK(r[3]["bits_per_byte"] == 5.77);
  CHECK(r[4]["layers"][0] == json({0.1, 0.2, 0.333333}));
  CHECK(r[4]["layers"][1][2].is_null());
  CHECK(r[4]["entropy"] == json({0.875, nullptr}));
  CHECK(r[4]["coverage"] == json({{0.5, 0.25}, {nullptr, nullptr}}));
  CHECK(r[4]["output_rms"] == json({{0.02, 0.05, 0.03}, {0, 0, 0}}));
  CHECK(r[4]["output_share"] == json({{0.2, 0.5, 0.3}, {0, 0, 0}}));
  CHECK(r[5]["path"] == "runs/x/checkpoints/step_00000002");
  CHECK(r[6]["text"].get<std::string>().rfind("caf\xC3\xA9", 0) == 0);
}

TEST_CASE("resuming drops what came after the restored step and a line cut by a crash") {
  TempDir dir;
  {
    RunLog log({dir.path(), 10, 1, false, false});
    log.start(run_record(0));
    for (std::int64_t s = 1; s <= 5; ++s) log.step(step_record(s));
    log.val({3, 192, 4.0, {}, 0});
    log.val({5, 320, 4.0, {}, 0});
  }
  const std::string path = dir.path() + "/metrics.jsonl";
  std::ofstream(path, std::ios::app) << R"({"type": "step", "step": 3, "lo)";
  RunLog log({dir.path(), 10, 1, false, false});
  log.start(run_record(3));
  log.step(step_record(4));
  const auto r = lines_of(path);
  std::vector<std::string> seen;
  for (const json& record : r)
    seen.push_back(record["type"].get<std::string>() +
                   (record.contains("step") ? std::to_string(record["step"].get<int>()) : ""));
  CHECK(seen == std::vector<std::string>{"run", "step1", "step2", "step3", "val3", "run", "step4"});
  CHECK(r[5]["resumed_from"] == 3);
  const std::string dropped = read_file(dir.path() + "/metrics.dropped.jsonl");
  CHECK(std::count(dropped.begin(), dropped.end(), '\n') == 4);
  for (const char* part : {"\"step\":4,", "\"type\":\"step\",\"step\":5,", "\"type\":\"val\",\"step\":5,", "\"lo\n"})
    CHECK(dropped.find(part) != std::string::npos);
}

TEST_CASE("metrics_up_to keeps bytes of what it keeps") {
  CHECK(metrics_up_to("", 3) == "");
  CHECK(metrics_up_to("{\"step\": 3 }\nnot json\n[1]\n{\"step\":4}\n{\"type\":\"run\"}\n{\"step\":1}", 3) ==
        "{\"step\": 3 }\n{\"type\":\"run\"}\n");
}

TEST_CASE("what metrics_up_to leaves out is not lost") {
  std::string dropped;
  metrics_up_to("{\"step\": 3 }\nnot json\n{\"step\":4}\n{\"step\":5", 3, &dropped);
  CHECK(dropped == "not json\n{\"step\":4}\n{\"step\":5\n");
  metrics_up_to("{\"step\":3}\n", 3, &dropped);
  CHECK(dropped.empty());
}

TEST_CASE("the last record of a type") {
  CHECK(last_record("", "checkpoint") == 0);
  CHECK(last_record("{\"type\":\"step\",\"step\":7}\n", "checkpoint") == 0);
  const std::string text =
      json_checkpoint(500, "a", 1) + "\n" + json_checkpoint(1000, "b", 1) + "\n" + json_sample(1200, "s");
  CHECK(last_record(text, "checkpoint") == 1000);
  CHECK(last_record(text, "sample") == 1200);
}

TEST_CASE("CRC-32C is Castagnoli's") {
  CHECK(crc32c("123456789") == 0xE3069283u);            // check value of the polynomial
  CHECK(crc32c(std::string(32, '\0')) == 0x8A9136AAu);  // RFC 3720 B.4
}

TEST_CASE("the event file: records with right checksums, tags and steps; a restart tells from which step") {
  TempDir dir;
  {
    RunLog log({dir.path(), 10, 1, true, false});
    log.start(run_record(0));
    log.step(step_record(300));
    log.val({300, 128, 2.5, {}, 0});
  }
  const std::string path = event_file(dir.path());
  const auto payloads = tf_payloads(read_file(path));
  REQUIRE(payloads.size() == 3);
  CHECK(payloads[0].find("brain.Event:2") != std::string::npos);
  CHECK(payloads[1].find("train/loss") != std::string::npos);
  CHECK(payloads[1].find("train/grad_norm") != std::string::npos);
  CHECK(payloads[1].substr(9, 3) == "\x10\xAC\x02");  // after field 1 (9 bytes): field 2, varint 300
  CHECK(payloads[2].find(std::string("\x0A\x08val/loss\x15\x00\x00\x20\x40", 15)) !=
        std::string::npos);  // tag, then float 2.5
  std::filesystem::remove(path);

  TensorBoardWriter restarted(dir.path(), 300);
  const auto again = tf_payloads(read_file(restarted.path()));
  REQUIRE(again.size() == 2);
  CHECK(again[1].substr(9) == std::string("\x10\xAD\x02\x3A\x02\x08\x01", 7));  // step 301, session log {status: START}

  TempDir killed;  // before its first checkpoint: it begins again
  write_file_atomic(killed.path() + "/events.out.tfevents.0000000001.host.1.0", "");
  const auto begun = tf_payloads(read_file(TensorBoardWriter(killed.path(), 0).path()));
  REQUIRE(begun.size() == 2);
  CHECK(begun[1].substr(9) == std::string("\x10\x01\x3A\x02\x08\x01", 6));
}

TEST_CASE("run.log gets a readable line per shown step, and always the skipped ones") {
  TempDir dir;
  {
    RunLog log({dir.path(), 100, 10, false, false});
    log.start(run_record(0));
    for (std::int64_t s = 1; s <= 12; ++s) {
      StepRecord r = step_record(s);
      if (s == 7) r.skipped = "outlier";
      log.step(r);
    }
  }
  const std::string text = read_file(dir.path() + "/run.log");
  CHECK(text.find("step   1/100  loss 4.0000  norm 1.500  lr 1.00e-03  20 ms  3.20k tok/s  32 % of peak  ETA 2.0 s") !=
        std::string::npos);
  CHECK(text.find("step   2/100") == std::string::npos);
  CHECK(text.find("SKIPPED (outlier)") != std::string::npos);
  CHECK(text.find("step  10/100") != std::string::npos);
  CHECK(text.find("step  11/100") == std::string::npos);
}

TEST_CASE("start tables add up and line up") {
  StartTables t;
  t.config = {{"attention", "nsa, 8 heads on 2"}, {"steps", "100"}};
  t.data = {{"train", 2, 1000000, 976, 24, 3.5}, {"val", 1, 5000, 4, 0, 0}};
  t.parameters = {{"embedding", 1, 750}, {"attention", 8, 250}};
  t.memory = {{"parameters", "weights", 4096}, {"work", "activations", 1 << 20}};
  const std::string text = to_text(t);
  CHECK(text.find("  attention  nsa, 8 heads on 2\n  steps      100\n") != std::string::npos);
  CHECK(text.find("1,000,000") != std::string::npos);
  CHECK(text.find("75.0 %") != std::string::npos);
  CHECK(text.find("1,052,672") != std::string::npos);  // 4096 + 1 MiB
  CHECK(text.find("unknown") != std::string::npos);
}

TEST_CASE("what is said of masked data: the share of targets, the answers right, those of each shard") {
  StartTables t;
  t.data = {{"train", 2, 1000, 976, 24, 1, 250}, {"val", 1, 5000, 4, 0, 1}};
  const std::string text = to_text(t);
  CHECK(text.find("targets") != std::string::npos);
  CHECK(text.find("25.00 %") != std::string::npos);
  CHECK(text.find("100.00 %") != std::string::npos);

  TempDir dir;
  RunLog log({dir.path(), 10, 1, false, false});
  log.start(run_record(0));
  ValRecord val;
  val.step = 2, val.loss = 1.5, val.accuracy = 0.125, val.counted = 1600;
  val.shards = {{"data/needle_val_depth00_000000.bin", 800, 1, 0.25},
                {"data/needle_val_depth05_000000.bin", 800, 2, 0}};
  log.val(val);
  StepRecord empty = step_record(3);
  empty.loss = empty.grad_norm = kNan, empty.skipped = kNoTargets;
  log.step(empty);
  const auto r = lines_of(dir.path() + "/metrics.jsonl");
  CHECK(r[1]["val_accuracy"] == 0.125);
  CHECK(r[1]["counted"] == 1600);
  CHECK_FALSE(r[1].contains("bits_per_byte"));
  CHECK(
      r[1]["shards"][1] ==
      json({{"shard", "data/needle_val_depth05_000000.bin"}, {"counted", 800}, {"loss", 2.0}, {"val_accuracy", 0.0}}));
  CHECK(r[2]["reason"] == "no targets");
  CHECK(r[2]["loss"].is_null());
  const std::string said = read_file(dir.path() + "/run.log");
  CHECK(said.find("loss 1.5000, 12.5 % of 1,600 answers right") != std::string::npos);
  CHECK(said.find("answers right: depth00 25.0 %, depth05 0.0 %") != std::string::npos);
  CHECK(said.find("no target of this batch counts") != std::string::npos);
  CHECK(said.find("nan") == std::string::npos);
}

TEST_CASE("a folder that cannot be written to is one sentence with its path") {
  try {
    RunLog log({"/nonexistent/run", 10, 1, false, false});
    FAIL("no error");
  } catch (const Error& e) {
    CHECK(std::string(e.what()).find("/nonexistent/run/run.log") != std::string::npos);
  }
}

TEST_CASE("a full disk costs records, not the run, and leaves no half record") {
  AppendFile full("/dev/full");
  CHECK_FALSE(full.append("{\"step\": 1}\n"));
  CHECK_FALSE(full.error().empty());
}
