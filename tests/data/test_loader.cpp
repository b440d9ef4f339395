#include "data/loader.h"

#include <algorithm>
#include <chrono>
#include <numeric>
#include <set>
#include <thread>

#include "data/shard_writer.h"
#include "tools.h"

using namespace nsa;
using namespace nsa::data;

namespace {

/// A shard of our own whose tokens are first, first + 1, ...: a token says where it came from.
std::string make_shard(const std::string& prefix, std::int64_t first, std::int64_t n, std::int64_t vocab_size = 60000) {
  ShardWriter writer(
      prefix, ShardInfo{.tokenizer = "bytes", .tokenizer_hash = 7, .vocab_size = vocab_size, .eot = vocab_size - 1},
      1 << 20);
  std::vector<std::int32_t> tokens(static_cast<std::size_t>(n));
  std::iota(tokens.begin(), tokens.end(), static_cast<std::int32_t>(first));
  writer.append(tokens, 3 * n);
  writer.finish();
  return writer.files().at(0);
}

std::vector<std::int64_t> order(const Loader& loader, std::int64_t begin, std::int64_t n) {
  std::vector<std::int64_t> visited;
  for (std::int64_t i = 0; i < n; ++i) visited.push_back(loader.sequence_at(begin + i));
  return visited;
}

}  // namespace

TEST_CASE("a permutation visits everything once", "[loader]") {
  for (const std::int64_t n : {1, 2, 3, 4, 5, 15, 16, 17, 63, 64, 65, 1000, 4097}) {
    for (const std::uint64_t key : {0ull, 1ull, 0xdeadbeefull}) {
      const Permutation permutation(n, key);
      std::set<std::int64_t> seen;
      for (std::int64_t i = 0; i < n; ++i) seen.insert(permutation(i));
      REQUIRE(static_cast<std::int64_t>(seen.size()) == n);
      REQUIRE(*seen.begin() == 0);
      REQUIRE(*seen.rbegin() == n - 1);
    }
  }
  const std::int64_t huge = 123'456'789'012;
  REQUIRE(Permutation(huge, 5)(huge - 1) < huge);
  // Mixed, not shifted: neighbours end up far apart, and about half of the pairs in falling order.
  const Permutation permutation(1000, 9);
  std::int64_t close = 0, falling = 0;
  for (std::int64_t i = 0; i + 1 < 1000; ++i) {
    close += std::abs(permutation(i + 1) - permutation(i)) < 10;
    falling += permutation(i + 1) < permutation(i);
  }
  REQUIRE(close < 60);
  REQUIRE((falling > 400 && falling < 600));
}

TEST_CASE("sequences of unequal and tiny shards", "[loader]") {
  const TempDir folder;
  make_shard(folder / "a", 0, 3);    // shorter than a sequence
  make_shard(folder / "b", 100, 9);  // exactly two: 0..4, 4..8
  make_shard(folder / "c", 200, 1);  // a single token
  make_shard(folder / "d", 300, 8);  // one, and three tokens left over
  make_shard(folder / "e", 400, 5);  // exactly one
  const TokenData data({folder / "*.bin"}, 4, 60000);
  REQUIRE(data.shards().size() == 5);
  REQUIRE(data.sequences() == 4);
  REQUIRE(data.tokens() == 26);
  REQUIRE(data.skipped_tokens() == 3 + 0 + 1 + 3 + 0);
  REQUIRE(data.bytes_per_token() == Approx(3.0));
  REQUIRE(data.tokenizer_hash() == 7);
  const std::vector<std::int32_t> first{100, 104, 300, 400};
  for (std::int64_t s = 0; s < 4; ++s) {
    std::vector<std::int32_t> got(5), expected(5);
    data.read(s, got.data());
    std::iota(expected.begin(), expected.end(), first[static_cast<std::size_t>(s)]);
    REQUIRE(got == expected);
  }
  std::vector<std::int32_t> out(5);
  REQUIRE(contains(error_of([&] { data.read(4, out.data()); }), "sequence 4 asked for, but there are 4"));
}

TEST_CASE("an epoch visits every sequence once, each in its own order", "[loader]") {
  const TempDir folder;
  make_shard(folder / "a", 0, 1001);
  make_shard(folder / "b", 5000, 333);
  const TokenData data({folder / "*.bin"}, 10, 60000);
  const std::int64_t S = data.sequences();
  REQUIRE(S == 100 + 33);
  const Loader loader(data, 42, 1);
  std::vector<std::vector<std::int64_t>> epochs;
  for (std::int64_t epoch = 0; epoch < 3; ++epoch) {
    epochs.push_back(order(loader, epoch * S, S));
    auto sorted = epochs.back();
    std::sort(sorted.begin(), sorted.end());
    std::vector<std::int64_t> all(static_cast<std::size_t>(S));
    std::iota(all.begin(), all.end(), 0);
    REQUIRE(sorted == all);
  }
  REQUIRE(epochs[0] != epochs[1]);
  REQUIRE(epochs[1] != epochs[2]);
  REQUIRE(order(Loader(data, 43, 1), 0, S) != epochs[0]);
  REQUIRE(order(Loader(data, 42, 1), 0, S) == epochs[0]);
}

TEST_CASE("what is read does not depend on the micro-batch, across the end of an epoch too", "[loader]") {
  const TempDir folder;
  make_shard(folder / "a", 0, 72);
  const std::int64_t T = 10;
  const TokenData data({folder / "*.bin"}, T, 60000);
  REQUIRE(data.sequences() == 7);
  const std::int64_t n = 24;  // more than three epochs, and no multiple of 7
  const auto read = [&](std::int64_t B) {
    Loader loader(data, 1, B);
    std::vector<std::int32_t> inputs, targets;
    for (std::int64_t position = 0; position < n; position += B) {
      const HostBatch& batch = loader.batch(position);
      inputs.insert(inputs.end(), batch.inputs, batch.inputs + B * T);
      targets.insert(targets.end(), batch.targets, batch.targets + B * T);
    }
    inputs.insert(inputs.end(), targets.begin(), targets.end());
    return inputs;
  };
  const auto one = read(1);
  for (const std::int64_t B : {2, 3, 4, 6, 8, 12, 24}) REQUIRE(read(B) == one);
  for (std::size_t i = 0; i < one.size() / 2; ++i)
    REQUIRE(one[one.size() / 2 + i] == one[i] + 1);  // targets are the next tokens
}

TEST_CASE("a batch depends on its position alone, whatever was asked for before", "[loader]") {
  const TempDir folder;
  make_shard(folder / "a", 0, 2001);
  const std::int64_t T = 20, B = 3;
  const TokenData data({folder / "*.bin"}, T, 60000);
  Loader loader(data, 5, B);
  std::vector<std::int32_t> sequence(static_cast<std::size_t>(T + 1));
  std::int64_t position = 0;
  for (int i = 0; i < 500; ++i) {
    // Mostly the next one, sometimes the same again, back to the start, or far away.
    position = i % 7 == 3 ? position : i % 11 == 5 ? 0 : i % 13 == 7 ? position + 1000 : position + B;
    const HostBatch& batch = loader.batch(position);
    if (i % 100 == 0) std::this_thread::sleep_for(std::chrono::milliseconds(5));  // the thread must not write into it
    for (std::int64_t b = 0; b < B; ++b) {
      data.read(loader.sequence_at(position + b), sequence.data());
      REQUIRE(std::equal(sequence.begin(), sequence.end() - 1, batch.inputs + b * T));
      REQUIRE(std::equal(sequence.begin() + 1, sequence.end(), batch.targets + b * T));
    }
  }
  for (int i = 0; i < 200; ++i) Loader(data, 5, 64).batch(i);  // ends while the thread is at work
}

TEST_CASE("an error in the thread belongs to its batch", "[loader]") {
  const TempDir folder;
  const std::string shard = make_shard(folder / "a", 0, 101);
  std::filesystem::remove(side_car_of(shard));
  const TokenData data({shard}, 10, 95);  // tokens from 95 on are in the last of ten sequences
  Loader loader(data, 3, 1);
  int bad = 0;
  for (std::int64_t position = 0; position < 10; ++position) {
    const bool last = loader.sequence_at(position) == 9;
    const std::string message = error_of([&] { loader.batch(position); });
    REQUIRE(message.empty() == !last);
    if (!last) continue;
    ++bad;
    REQUIRE(contains(message, "token 95 at offset 95 is outside the vocabulary of 95"));
    REQUIRE(error_of([&] { loader.batch(position); }) == message);  // prepared here this time
  }
  REQUIRE(bad == 1);
  REQUIRE(contains(error_of([&] { loader.batch(-1); }), "position -1 is negative"));
  REQUIRE(contains(error_of([&] { Loader(data, 3, 0); }), "0 sequences"));
}

TEST_CASE("data that cannot be trained on is refused", "[loader]") {
  const TempDir folder;
  const auto refused = [&](const std::vector<std::string>& globs, std::int64_t T, std::int64_t V) {
    return error_of([&] { TokenData(globs, T, V); });
  };
  REQUIRE(contains(refused({folder / "*.bin"}, 4, 10), folder / "*.bin"));
  REQUIRE(contains(refused({}, 4, 10), "no shards"));
  const std::string small = make_shard(folder / "small", 0, 5);
  REQUIRE(refused({small}, 4, 60000).empty());
  REQUIRE(contains(refused({small}, 5, 60000),
                   "no shard holds a single sequence: one takes 5 + 1 tokens, the longest of 1 shards has 5"));
  const std::string vocabulary = refused({small}, 4, 50257);
  REQUIRE(contains(vocabulary, small));
  REQUIRE(contains(vocabulary, "60000"));
  REQUIRE(contains(vocabulary, "50257"));

  const TokenData padded({small}, 4, 60032);  // more rows in the model than tokens in the shards
  REQUIRE(padded.vocab_size() == 60000);
  std::vector<std::int32_t> sequence(5);
  padded.read(0, sequence.data());
  REQUIRE(sequence[4] == 4);
  std::string damaged = read_file(small);
  damaged[1024] = damaged[1025] = static_cast<char>(0xEA);  // 60138: a row of the model, but none of the tokens
  write_text(small, damaged);
  REQUIRE(contains(error_of([&] { padded.read(0, sequence.data()); }), "outside the vocabulary of 60000"));
  write_text(small, damaged.replace(1024, 2, 2, '\0'));

  // A shard without side-car shows its tokens only when they are read: file and offset are named.
  std::filesystem::remove(side_car_of(small));
  const TokenData data({small}, 4, 3);
  std::vector<std::int32_t> out(5);
  const std::string message = error_of([&] { data.read(0, out.data()); });
  REQUIRE(contains(message, small));
  REQUIRE(contains(message, "token 3 at offset 3 is outside the vocabulary of 3"));
  REQUIRE(data.bytes_per_token() == 0);
  REQUIRE(data.tokenizer_hash() == 0);
  REQUIRE(data.vocab_size() == 0);

  const std::string one = make_shard(folder / "one", 0, 50);
  std::string side_car = read_file(side_car_of(one));
  side_car.replace(side_car.find("0000000000000007"), 16, "0000000000000008");
  make_shard(folder / "two", 0, 50);
  write_text(side_car_of(one), side_car);
  REQUIRE(
      contains(refused({folder / "one*.bin", folder / "two*.bin"}, 4, 60000), "shards of one run need one tokenizer"));
}

TEST_CASE("the fingerprint follows content and order", "[loader]") {
  const TempDir folder;
  const std::string a = make_shard(folder / "a", 0, 50), b = make_shard(folder / "b", 1, 50);
  const auto fingerprint = [](const std::vector<std::string>& files) {
    return TokenData(files, 4, 60000).fingerprint();
  };
  REQUIRE(fingerprint({a, b}) == fingerprint({a, b}));
  REQUIRE(fingerprint({a, b}) != fingerprint({b, a}));
  REQUIRE(fingerprint({a}) != fingerprint({b}));
}
