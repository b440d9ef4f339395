// What a run reads, held against each other: bytes behind tokens, shards in both sets, the tokenizer it began with.
#include "train/inputs.h"

#include <cmath>
#include <filesystem>

#include "data/tools.h"
#include "small_run.h"

namespace fs = std::filesystem;

namespace {

double number_in(const std::string& line, const std::string& key) {
  const std::size_t at = line.find("\"" + key + "\":");
  return at == std::string::npos ? NAN : std::stod(line.substr(at + key.size() + 3));
}

// Shards of bytes: short documents first, long ones behind, so that the first sequences hold far more ends of text
// (which are no bytes) than the rest.
Config bytes_config(const TempDir& dir, const std::string& name) {
  const data::Tokenizer tokenizer = data::Tokenizer::open("bytes");
  const data::ShardInfo info{.tokenizer = "bytes", .tokenizer_hash = tokenizer.hash(), .vocab_size = 257, .eot = 256};
  if (!fs::exists(dir / "bytes_000000.bin")) {
    data::ShardWriter writer(dir / "bytes", info, 1 << 20);
    for (int i = 0; i < 60; ++i) writer.document(tokenizer.encode("ab"), 2);
    for (int i = 0; i < 4; ++i) writer.document(tokenizer.encode(std::string(150, 'x')), 150);
    writer.finish();
  }
  Config c = tiny_config(dir.path(), AttentionType::full, name);
  c.model.vocab_size = 257;
  c.data.train = c.data.val = {dir / "bytes_*.bin"};
  c.data.tokenizer = "bytes";
  c.train.steps = 1, c.train.batch_tokens = c.train.micro_batch * kT, c.train.schedule.warmup_steps = 0;
  c.eval.every = 1;
  return c;
}

}  // namespace

TEST_CASE("bits per byte divide by the bytes of the tokens that were evaluated", "[inputs]") {
  const TempDir dir;
  Config part = bytes_config(dir, "part"), whole = bytes_config(dir, "whole"), blind = bytes_config(dir, "blind");
  part.eval.batches = 1;
  blind.eval.batches = 1, blind.data.tokenizer = "";
  for (const Config& config : {part, whole, blind}) REQUIRE(train(config, quiet()) == Exit::ok);

  const data::Shard shard(dir / "bytes_000000.bin");
  const auto expected = [&](const Config& config, std::int64_t sequences) {
    std::vector<std::int32_t> tokens(static_cast<std::size_t>(sequences * kT));
    shard.read(1, sequences * kT, tokens.data(), 257);
    const double bytes =
        static_cast<double>(std::count_if(tokens.begin(), tokens.end(), [](int t) { return t < 256; }));
    return number_in(records(config, "val").back(), "loss") * static_cast<double>(tokens.size()) / std::log(2.0) /
           bytes;
  };
  const std::int64_t all = (shard.tokens() - 1) / kT;
  CHECK(number_in(records(part, "val").back(), "bits_per_byte") == Approx(expected(part, 2)).epsilon(1e-9));
  CHECK(number_in(records(whole, "val").back(), "bits_per_byte") == Approx(expected(whole, all)).epsilon(1e-9));
  CHECK(std::isnan(number_in(records(blind, "val").back(), "bits_per_byte")));

  Config side_cars = bytes_config(dir, "side_cars");
  side_cars.data.tokenizer = "";
  REQUIRE(train(side_cars, quiet()) == Exit::ok);
  CHECK(number_in(records(side_cars, "val").back(), "bits_per_byte") == Approx(expected(whole, all)).epsilon(0.02));
}

TEST_CASE("a token stands for its bytes; ends of text and padding rows for none", "[inputs]") {
  const auto bytes = bytes_of_tokens(data::Tokenizer::open("bytes"), 300);
  CHECK(bytes.size() == 300);
  CHECK(std::count(bytes.begin(), bytes.begin() + 256, 1) == 256);
  CHECK(std::count(bytes.begin() + 256, bytes.end(), 0) == 44);
  const data::Tokenizer model = data::Tokenizer::open(small_model());
  const std::string text = training_text();
  const auto of_model = bytes_of_tokens(model, model.vocab_size());
  std::size_t sum = 0;
  for (std::int32_t token : model.encode(text))
    sum += static_cast<std::size_t>(of_model[static_cast<std::size_t>(token)]);
  CHECK(sum == text.size());
  CHECK(of_model[static_cast<std::size_t>(model.eot())] == 0);
}

TEST_CASE("validation shards that are training shards are named, as a link and as a copy too", "[inputs]") {
  const TempDir dir;
  write_shards(dir.path());
  const std::string first = fmt::format("{}/part{}_000000.bin", dir.path(), 5 * kT + 1),
                    second = fmt::format("{}/part{}_000000.bin", dir.path(), kT + 1),
                    third = fmt::format("{}/part{}_000000.bin", dir.path(), 3 * kT + 9);
  fs::create_symlink(first, dir / "link.bin");
  fs::copy_file(second, dir / "copy.bin");
  const auto shared = [&](const std::vector<std::string>& train, const std::vector<std::string>& val) {
    return shared_shards(data::TokenData(train, kT, kVocab), data::TokenData(val, kT, kVocab));
  };
  CHECK(shared({first, second}, {third}) == "");
  CHECK(contains(shared({first, second}, {first}), first));
  CHECK(contains(shared({first, second}, {third, dir / "link.bin"}), "1 of 2 shards in data.val"));
  CHECK(contains(shared({first, second}, {dir / "link.bin"}), "link.bin"));
  CHECK(contains(shared({first, second}, {dir / "copy.bin"}), dir / "copy.bin" + " = " + second));

  Config config = tiny_config(dir.path(), AttentionType::full, "warned");
  config.train.steps = 1, config.train.schedule.warmup_steps = 0;
  CHECK(train(config, quiet()) == Exit::ok);
  CHECK(contains(read_file(run_dir(config) + "/run.log"), "4 of 4 shards in data.val are also in data.train"));
}

TEST_CASE("the run's folder keeps the tokenizer it began with, and another one beside it", "[inputs]") {
  const TempDir dir;
  fs::copy_file(small_model(), dir / "t.model");
  const std::string model = read_file(small_model());
  keep_tokenizer(dir.path(), data::Tokenizer::open("bytes"));
  CHECK(!fs::exists(tokenizer_copy(dir.path())));
  keep_tokenizer(dir.path(), data::Tokenizer::open(dir / "t.model"));
  CHECK(read_file(tokenizer_copy(dir.path())) == model);
  write_text(tokenizer_copy(dir.path()), "other");
  keep_tokenizer(dir.path(), data::Tokenizer::open(dir / "t.model"));
  CHECK(read_file(tokenizer_copy(dir.path())) == model);
  CHECK(read_file(dir / "tokenizer-1.model") == "other");
}
