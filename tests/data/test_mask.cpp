// Masks: which tokens of a shard count as targets, from the file to the loader's targets.
#include "data/mask.h"

#include <algorithm>
#include <cstring>
#include <numeric>

#include "core/rng.h"
#include "data/loader.h"
#include "data/shard_writer.h"
#include "tools.h"

using namespace nsa;
using namespace nsa::data;

namespace {

const ShardInfo kNoEot{.tokenizer = "bytes", .tokenizer_hash = 7, .vocab_size = 60000};

std::vector<std::int32_t> from(std::int32_t first, std::size_t n) {
  std::vector<std::int32_t> tokens(n);
  std::iota(tokens.begin(), tokens.end(), first);
  return tokens;
}

std::vector<bool> some_of(std::size_t n, const std::string& name) {
  std::vector<bool> bits(n);
  for (std::size_t i = 0; i < n; ++i) bits[i] = Rng(1, name).uniform(i) < 0.3;
  return bits;
}

/// Tokens 0, 1, ... in one shard with this mask. Its path.
std::string masked(const std::string& prefix, const std::vector<bool>& bits) {
  ShardWriter writer(prefix, kNoEot, 1 << 20);
  writer.append(from(0, bits.size()), bits, 0);
  writer.finish();
  return writer.files().at(0);
}

std::vector<bool> read_back(const Shard& shard) {
  const auto n = static_cast<std::size_t>(shard.tokens());
  std::vector<std::int32_t> targets(n, 5);
  shard.mask()->apply(0, shard.tokens(), targets.data());
  std::vector<bool> bits(n);
  for (std::size_t i = 0; i < n; ++i) bits[i] = targets[i] == 5;
  return bits;
}

}  // namespace

TEST_CASE("a mask comes back bit for bit, whole and in parts", "[mask]") {
  for (const std::size_t n : {1, 7, 8, 9, 64, 1000}) {
    const TempDir folder;
    const std::vector<bool> bits = some_of(n, "whole");
    const Shard shard(masked(folder / "x", bits));
    REQUIRE(shard.mask());
    REQUIRE(read_back(shard) == bits);
    REQUIRE(shard.mask()->counted() == std::count(bits.begin(), bits.end(), true));
    shard.mask()->check();
    for (std::size_t begin = 0; begin < n; begin += 1 + n / 13) {
      for (std::size_t part = 0; begin + part <= n; part += 1 + n / 11) {
        std::vector<std::int32_t> targets = from(100, part), expected = targets;
        for (std::size_t i = 0; i < part; ++i) expected[i] = bits[begin + i] ? expected[i] : -1;
        const auto b = static_cast<std::int64_t>(begin), p = static_cast<std::int64_t>(part);
        const std::int64_t left = shard.mask()->apply(b, p, targets.data());
        REQUIRE(targets == expected);
        REQUIRE(left == static_cast<std::int64_t>(part) - std::count(expected.begin(), expected.end(), -1));
        REQUIRE(shard.mask()->count(b, p) == left);
      }
    }
  }
}

TEST_CASE("the shard's file is the one without a mask, and its mask is the documented bytes", "[mask]") {
  const TempDir folder;
  ShardWriter plain(folder / "plain", kNoEot, 1 << 20);
  plain.append(from(0, 10), 0);
  plain.finish();
  std::vector<bool> bits(10);
  bits[0] = bits[3] = bits[9] = true;
  const std::string shard = masked(folder / "masked", bits);
  REQUIRE(read_file(shard) == read_file(plain.files().at(0)));
  REQUIRE(!std::filesystem::exists(mask_of(plain.files().at(0))));
  REQUIRE(!Shard(plain.files().at(0)).mask());
  std::uint64_t words[5] = {1, 10, 3, Shard(shard).fingerprint(), 0};
  std::string expected("NSAMASK\n");
  expected.append(reinterpret_cast<const char*>(words), sizeof(words));
  expected += "\x09\x02";
  REQUIRE(read_file(mask_of(shard)) == expected);
}

TEST_CASE("masked and unmasked parts of a writer, across shards", "[mask]") {
  const TempDir folder;
  {
    ShardWriter writer(folder / "x", ShardInfo{.tokenizer = "bytes", .vocab_size = 300, .eot = 299}, 10);
    writer.append(from(0, 4), 0);
    writer.append(from(4, 12), std::vector<bool>(12, false), 0);  // into the second shard
    writer.end_document();
    writer.append(from(20, 3), 0);
    writer.append(from(30, 12), 0);  // a third shard, without a mask
    REQUIRE(
        contains(error_of([&] { writer.append(from(0, 3), std::vector<bool>(4), 0); }), "3 tokens, but a mask for 4"));
    writer.finish();
    REQUIRE(writer.files().size() == 4);
  }
  const auto bits = [&](int i) { return read_back(Shard(folder / fmt::format("x_{:06}.bin", i))); };
  REQUIRE(bits(0) == std::vector<bool>{true, true, true, true, false, false, false, false, false, false});
  REQUIRE(bits(1) == std::vector<bool>{false, false, false, false, false, false, true, true, true, true});
  for (const int i : {2, 3}) REQUIRE(!std::filesystem::exists(mask_of(folder / fmt::format("x_{:06}.bin", i))));
  const std::size_t files = static_cast<std::size_t>(
      std::distance(std::filesystem::directory_iterator(folder / ""), std::filesystem::directory_iterator()));
  {
    ShardWriter unfinished(folder / "y", kNoEot, 5);
    unfinished.append(from(0, 12), std::vector<bool>(12, true), 0);
  }
  REQUIRE(files == static_cast<std::size_t>(std::distance(std::filesystem::directory_iterator(folder / ""),
                                                          std::filesystem::directory_iterator())));
  std::filesystem::remove(folder / "x_000000.bin");
  std::filesystem::remove(folder / "x_000000.bin.json");
  REQUIRE(contains(error_of([&] { ShardWriter(folder / "x", kNoEot, 5); }), "x_000000.bin.mask exists already"));
}

TEST_CASE("a mask that does not belong to its shard is one sentence", "[mask]") {
  const TempDir folder;
  const std::string shard = masked(folder / "x", some_of(100, "x")), mask = mask_of(shard);
  const std::string good = read_file(mask);
  const auto refused = [&](const std::string& content) {
    write_text(mask, content);
    const std::string message = error_of([&] { Shard{shard}; });
    REQUIRE(contains(message, mask));
    REQUIRE(message.find('\n') == std::string::npos);
    return message;
  };
  const auto with = [&](std::size_t at, char c) {
    std::string bytes = good;
    bytes[at] = c;
    return bytes;
  };
  REQUIRE(contains(refused(""), "empty file"));
  REQUIRE(contains(refused(good.substr(0, 30)), "truncated: 30 bytes"));
  REQUIRE(
      contains(refused(good.substr(0, good.size() - 1)), "truncated: 100 tokens need 61 bytes, but the file has 60"));
  REQUIRE(contains(refused(good + "x"), "too long"));
  REQUIRE(contains(refused(with(0, 'n')), "no mask of a shard"));
  REQUIRE(contains(refused(with(8, 2)), "version 2"));
  REQUIRE(contains(refused(with(16, 99)), "of a shard of 99 tokens"));
  REQUIRE(contains(refused(with(24, 101)), "101 of 100 tokens count"));
  REQUIRE(contains(refused(with(33, static_cast<char>(good[33] + 1))), "of another shard"));
  REQUIRE(contains(refused(read_file(mask_of(masked(folder / "longer", some_of(101, "x"))))), "101 tokens"));
  write_text(mask, good);
  REQUIRE(error_of([&] { Shard{shard}; }).empty());
  write_text(mask, with(50, static_cast<char>(good[50] ^ 1)));  // seen by who looks for it (inspect_shard)
  REQUIRE(contains(error_of([&] { Shard(shard).mask()->check(); }), "tokens count, but its header says"));

  std::string tokens = read_file(shard);  // other tokens under the same name
  tokens.back() ^= 1;
  write_text(shard, tokens);
  write_text(mask, good);
  REQUIRE(contains(error_of([&] { Shard{shard}; }), "of another shard"));
  std::filesystem::remove(mask);
  std::filesystem::create_symlink(folder / "nowhere", mask);
  REQUIRE(contains(error_of([&] { Shard{shard}; }), "cannot be opened"));
}

TEST_CASE("targets that do not count are -1; masked and unmasked shards in one set", "[mask]") {
  const TempDir folder;
  const std::int64_t T = 10;
  const std::vector<bool> bits = some_of(64, "mixed");
  masked(folder / "a", bits);
  ShardWriter plain(folder / "b", kNoEot, 1 << 20);
  plain.append(from(1000, 31), 0);
  plain.finish();
  const TokenData data({folder / "*.bin"}, T, 60000);
  REQUIRE(data.masked());
  REQUIRE(data.sequences() == 6 + 3);
  REQUIRE(data.counted() == std::count(bits.begin(), bits.end(), true) + 31);
  std::vector<std::int32_t> tokens(11), inputs(10), targets(10);
  for (std::int64_t s = 0; s < 9; ++s) {
    data.read(s, tokens.data());
    const std::int64_t counted = data.read(s, inputs.data(), targets.data());
    std::int64_t expected = 0;
    for (std::size_t t = 0; t < 10; ++t) {
      const bool counts = s >= 6 || bits[static_cast<std::size_t>(s * T) + t + 1];
      expected += counts;
      REQUIRE(inputs[t] == tokens[t]);
      REQUIRE(targets[t] == (counts ? tokens[t + 1] : -1));
    }
    REQUIRE(counted == expected);
    REQUIRE(data.counted(s) == expected);
  }
  Loader loader(data, 3, 2);
  for (std::int64_t position = 0; position < 40; position += 2) {
    const HostBatch& batch = loader.batch(position);
    REQUIRE(loader.counted(position, 2) == 2 * T - std::count(batch.targets, batch.targets + 2 * T, -1));
  }
  REQUIRE(loader.counted(0, 9) == loader.counted(0, 4) + loader.counted(4, 5));
}

TEST_CASE("the fingerprint covers masks, and data in which nothing counts are refused", "[mask]") {
  const TempDir folder;
  std::vector<bool> bits = some_of(64, "x");
  const std::string a = masked(folder / "a", bits);
  bits[17] = !bits[17];
  const std::string b = masked(folder / "b", bits), none = masked(folder / "none", std::vector<bool>(64, false));
  const auto fingerprint = [](const std::string& shard) { return TokenData({shard}, 4, 60000).fingerprint(); };
  REQUIRE(Shard(a).fingerprint() == Shard(b).fingerprint());
  REQUIRE(fingerprint(a) != fingerprint(b));
  const std::uint64_t before = fingerprint(a);
  std::filesystem::remove(mask_of(a));
  REQUIRE(fingerprint(a) != before);
  REQUIRE(contains(error_of([&] { fingerprint(none); }), "none of 64 tokens counts as a target"));
  REQUIRE(error_of([&] { TokenData({none, b}, 4, 60000); }).empty());
}
