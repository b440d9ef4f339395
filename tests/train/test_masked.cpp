// Runs on masked data: the loss is the mean over the targets that count, of the whole step, and nothing false is said
// of the rest.
#include <cmath>
#include <filesystem>
#include <functional>

#include "data/loader.h"
#include "data/tools.h"
#include "small_run.h"

namespace {

// One shard of `sequences` sequences of kT; counts(sequence, t): whether target t of the sequence does.
void write_masked(const std::string& prefix, std::int64_t sequences,
                  const std::function<bool(std::int64_t, std::int64_t)>& counts) {
  const data::Tokenizer tokenizer = data::Tokenizer::open("bytes");
  data::ShardWriter writer(
      prefix, {.tokenizer = "bytes", .tokenizer_hash = tokenizer.hash(), .vocab_size = kVocab, .eot = -1}, 1 << 20);
  const Rng rng(11, prefix.substr(prefix.rfind('/')));
  std::vector<std::int32_t> tokens{1};
  std::vector<bool> bits{false};
  for (std::int64_t s = 0; s < sequences; ++s) {
    for (std::int64_t t = 0; t < kT; ++t) {
      const bool noise = rng.uniform(tokens.size()) < 0.2;
      tokens.push_back(1 + static_cast<std::int32_t>(noise ? rng.bits(tokens.size()) % (kVocab - 1)
                                                           : (tokens.back() * 5 + 3) % (kVocab - 1)));
      bits.push_back(counts(s, t));
    }
  }
  writer.append(tokens, bits, static_cast<std::int64_t>(tokens.size()));
  writer.finish();
}

Config masked_config(const TempDir& dir, const std::string& name) {
  Config c = tiny_config(dir.path(), AttentionType::nsa, name);
  c.data.train = {dir / "train_*.bin"};
  c.data.val = {dir / "val_*.bin"};
  return c;
}

double number_in(const std::string& line, const std::string& key) {
  const std::size_t at = line.find("\"" + key + "\":");
  return at == std::string::npos ? NAN : std::stod(line.substr(at + key.size() + 3));
}

bool every(std::int64_t, std::int64_t) { return true; }
// As unequal as can be: sequence 0 counts once, the last one always.
bool unequal(std::int64_t s, std::int64_t t) { return t % 9 <= s; }

}  // namespace

TEST_CASE("a mask of ones changes no bit of a run", "[masked]") {
  const TempDir dir;
  write_masked(dir / "train", 9, every);
  write_masked(dir / "val", 3, every);
  const Config with = masked_config(dir, "with"), without = masked_config(dir, "without");
  train_with_stops(with, {});
  for (const char* shard : {"train_000000.bin", "val_000000.bin"})
    REQUIRE(std::filesystem::remove(data::mask_of(dir / shard)));
  train_with_stops(without, {});
  CHECK(final_files(with) == final_files(without));
  CHECK(step_losses(with) == step_losses(without));
  CHECK(records(with, "val") == records(without, "val"));
}

TEST_CASE("every target that counts weighs the same, whatever micro-batch it is in", "[masked]") {
  const TempDir dir;
  write_masked(dir / "train", 9, unequal);
  write_masked(dir / "val", 3, unequal);
  std::vector<std::vector<std::pair<std::int64_t, double>>> losses;
  for (const std::int64_t B : {4, 2, 1}) {
    Config config = masked_config(dir, fmt::format("micro{}", B));
    config.train.micro_batch = B;
    train_with_stops(config, B == 2 ? std::vector<std::int64_t>{3, 7} : std::vector<std::int64_t>{});
    losses.push_back(step_losses(config));
    REQUIRE(losses.back().size() == 12);
    for (std::size_t s = 0; s < 12; ++s)
      CHECK(losses.back()[s].second == Approx(losses[0][s].second).epsilon(s < 4 ? 1e-5 : 1e-3));
  }
  CHECK(losses[0].back().second < losses[0].front().second);
  // a uniform guess is ln 29 = 3.37: a sum over counted targets divided by all of them would be far below
  CHECK(losses[0].front().second == Approx(std::log(29.0)).epsilon(0.2));
}

TEST_CASE("loss and gradient are those of a batch of the counted sequences alone", "[masked]") {
  const TempDir dir;
  write_masked(dir / "train", 8, [](std::int64_t s, std::int64_t) { return s % 2 == 0; });
  const data::TokenData train_data({dir / "train_*.bin"}, kT, kVocab);
  std::vector<std::int32_t> tokens(static_cast<std::size_t>(kT) + 1);
  for (const std::int64_t s : {0, 2, 4, 6}) {
    data::ShardWriter writer(dir / fmt::format("alone{}", s), {.tokenizer = "bytes", .vocab_size = kVocab, .eot = -1},
                             1 << 20);
    train_data.read(s, tokens.data());
    writer.append(tokens, 0);
    writer.finish();
  }
  std::vector<std::string> first;
  for (const auto& [name, sequences] : {std::pair("train", 8), std::pair("alone", 4)}) {  // all of the data: any order
    Config config = masked_config(dir, name);
    config.data.train = {dir / (std::string(name) + "*.bin")};
    config.data.val.clear();
    config.train.steps = 1, config.train.schedule.warmup_steps = 0, config.train.batch_tokens = sequences * kT;
    train_with_stops(config, {});
    first.push_back(records(config, "step").at(0));
  }
  CHECK(number_in(first[0], "loss") == Approx(number_in(first[1], "loss")).epsilon(1e-5));
  CHECK(number_in(first[0], "grad_norm") == Approx(number_in(first[1], "grad_norm")).epsilon(1e-4));
}

TEST_CASE("a validation is over what counts: loss, accuracy, and no bits per byte", "[masked]") {
  const TempDir dir;
  write_masked(dir / "train", 9, every);
  write_masked(dir / "val", 4, unequal);
  Config config = masked_config(dir, "masked");
  config.train.optimizer.lr = 0.02;
  train_with_stops(config, {});
  const std::string last = records(config, "val").back();
  const data::TokenData val({dir / "val_*.bin"}, kT, kVocab);
  std::int64_t counted = 0;
  for (std::int64_t s = 0; s < 4; ++s) counted += val.counted(s);
  CHECK(number_in(last, "counted") == static_cast<double>(counted));
  CHECK(std::isnan(number_in(last, "bits_per_byte")));
  const double accuracy = number_in(last, "val_accuracy");
  CHECK(accuracy * static_cast<double>(counted) == Approx(std::round(accuracy * static_cast<double>(counted))));
  CHECK(accuracy > 0.2);  // the pattern is learnt, a guess has 1/29
  CHECK(contains(read_file(run_dir(config) + "/run.log"), fmt::format("of {} answers right", counted)));

  // The sequences one by one, each in a shard of its own with its bits: loss and hits add up.
  double loss = 0, hits = 0;
  std::vector<std::int32_t> tokens(static_cast<std::size_t>(4 * kT + 1));
  val.shards()[0].read(0, 4 * kT + 1, tokens.data(), kVocab);
  for (std::int64_t s = 0; s < 4; ++s) {
    const std::string prefix = dir / fmt::format("one{}", s);
    data::ShardWriter writer(prefix, {.tokenizer = "bytes", .vocab_size = kVocab, .eot = -1}, 1 << 20);
    const std::vector<std::int32_t> part(tokens.begin() + s * kT, tokens.begin() + (s + 1) * kT + 1);
    std::vector<bool> bits{false};
    for (std::int64_t t = 0; t < kT; ++t) bits.push_back(unequal(s, t));
    writer.append(part, bits, 0);
    writer.finish();
    Config one = config;
    one.data.val = {prefix + "_*.bin"};
    const std::string path = run_dir(config) + "/metrics.jsonl";
    std::string text = read_file(path);
    text.resize(text.rfind("{\"type\":\"val\""));
    write_file_atomic(path, text);  // the last validation is made up, on other data
    train_with_stops(one, {});
    const std::string line = records(one, "val").back();
    const double n = static_cast<double>(val.counted(s));
    loss += n * number_in(line, "loss");
    hits += n * number_in(line, "val_accuracy");
  }
  CHECK(loss / static_cast<double>(counted) == Approx(number_in(last, "loss")).epsilon(1e-5));
  CHECK(hits / static_cast<double>(counted) == Approx(accuracy).epsilon(1e-9));

  // All of them at once: the same, and each by itself.
  Config all = config;
  all.data.val = {dir / "one*.bin"};
  const std::string path = run_dir(config) + "/metrics.jsonl";
  std::string text = read_file(path);
  const std::string of_last = records(config, "val").back();  // of shard 3 alone
  text.resize(text.rfind("{\"type\":\"val\""));
  write_file_atomic(path, text);
  train_with_stops(all, {});
  const std::string together = records(all, "val").back();
  CHECK(number_in(together, "loss") == Approx(number_in(last, "loss")).epsilon(1e-6));
  CHECK(number_in(together, "val_accuracy") == accuracy);
  const std::string third = together.substr(together.find("one3_000000.bin"));
  CHECK(number_in(third, "counted") == static_cast<double>(val.counted(3)));
  CHECK(number_in(third, "loss") == Approx(number_in(of_last, "loss")).epsilon(1e-6));
  CHECK(number_in(third, "val_accuracy") == Approx(number_in(of_last, "val_accuracy")));
  CHECK(contains(read_file(run_dir(config) + "/run.log"), "answers right: one0 "));
}

TEST_CASE("unmasked data have an accuracy too, beside bits per byte", "[masked]") {
  const TempDir dir;
  write_masked(dir / "train", 9, unequal);
  write_masked(dir / "val", 3, every);
  const Config config = masked_config(dir, "plain_val");
  train_with_stops(config, {});
  const std::string last = records(config, "val").back(), run = records(config, "run").back();
  CHECK(number_in(last, "val_accuracy") >= 0);
  CHECK(number_in(last, "bits_per_byte") > 0);
  CHECK(std::isnan(number_in(last, "counted")));
  CHECK(std::isnan(number_in(run, "bytes_per_token")));  // nats per counted target are no nats per token of the text
}

TEST_CASE("a step in which nothing counts is skipped, in a sentence, and the weights stay numbers", "[masked]") {
  const TempDir dir;
  write_masked(dir / "train", 9, [](std::int64_t s, std::int64_t) { return s == 4; });
  write_masked(dir / "val", 3, every);
  Config config = masked_config(dir, "holes");
  config.train.micro_batch = 1, config.train.batch_tokens = kT, config.train.steps = 20;
  train_with_stops(config, {7});
  std::int64_t trained = 0;
  for (const std::string& line : records(config, "step")) {
    const bool skipped = contains(line, R"("skipped":true,"reason":"no targets")");
    CHECK(skipped == contains(line, R"("loss":null,"grad_norm":null)"));
    trained += !skipped;
  }
  CHECK(trained >= 2);
  CHECK(trained <= 3);
  const std::string log = read_file(run_dir(config) + "/run.log");
  CHECK(contains(log, "no target of this batch counts"));
  CHECK(!contains(log, "nan"));
  CHECK(std::isfinite(number_in(records(config, "val").back(), "loss")));

  config.log.name = "too_many", config.train.max_skipped = 3;
  CHECK(contains(error_of([&] { train(config, quiet()); }), "3 steps in a row were skipped"));
}

TEST_CASE("a changed mask is changed data; a validation of nothing is refused at the start", "[masked]") {
  const TempDir dir;
  write_masked(dir / "train", 9, unequal);
  write_masked(dir / "val", 3, [](std::int64_t s, std::int64_t) { return s == 2; });
  Config config = masked_config(dir, "changed");
  RunOptions options = quiet();
  options.stop_after_step = 2;
  CHECK(train(config, options) == Exit::ok);
  std::filesystem::remove(data::mask_of(dir / "train_000000.bin"));
  CHECK(contains(error_of([&] { train(config, quiet()); }), "data.train changed"));

  config.log.name = "nothing", config.eval.batches = 1;
  CHECK(contains(error_of([&] { train(config, quiet()); }), "no target counts in the 2 sequences"));
  CHECK(!std::filesystem::exists(run_dir(config)));
  config.eval.batches = 2;
  CHECK(train(config, options) == Exit::ok);
}
