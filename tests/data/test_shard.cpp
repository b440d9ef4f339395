#include "data/shard_writer.h"

#include <cstring>
#include <numeric>

#include "tools.h"

using namespace nsa;
using namespace nsa::data;

namespace {

std::string header(std::initializer_list<std::int32_t> words) {
  std::string bytes(1024, '\0');
  std::size_t at = 0;
  for (std::int32_t word : words) {
    std::memcpy(bytes.data() + at, &word, 4);
    at += 4;
  }
  return bytes;
}

template <class T>
std::string body(const std::vector<std::int32_t>& tokens) {
  std::string bytes;
  for (std::int32_t token : tokens) {
    const T narrow = static_cast<T>(token);
    bytes.append(reinterpret_cast<const char*>(&narrow), sizeof(T));
  }
  return bytes;
}

std::string bin_tok(std::int32_t version, std::int32_t width, std::int32_t count, std::int32_t vocab,
                    std::int32_t mask) {
  std::string bytes = header({0, 0, version, width, count, vocab, mask});
  return bytes.replace(0, 8, "BIN.TOK\n");
}

std::vector<std::int32_t> all_of(const Shard& shard, std::int64_t vocab_size = 1 << 30) {
  std::vector<std::int32_t> tokens(static_cast<std::size_t>(shard.tokens()));
  shard.read(0, shard.tokens(), tokens.data(), vocab_size);
  return tokens;
}

const ShardInfo kInfo{.tokenizer = "bytes", .tokenizer_hash = 0xfedcba9876543210, .vocab_size = 257, .eot = 256};

std::size_t files_in(const TempDir& folder) {
  return static_cast<std::size_t>(
      std::distance(std::filesystem::directory_iterator(folder / ""), std::filesystem::directory_iterator()));
}

}  // namespace

TEST_CASE("four layouts are read", "[shard]") {
  const TempDir folder;
  const std::vector<std::int32_t> small{0, 1, 65535, 12345, 7}, large{0, 1, 65536, 200000, 7};
  const std::string path = folder / "x.bin";
  const auto check = [&](const std::string& content, ShardFormat format, const std::vector<std::int32_t>& expected) {
    write_text(path, content);
    const Shard shard(path);
    REQUIRE(shard.format() == format);
    REQUIRE(all_of(shard) == expected);
  };
  check(header({20240520, 1, 5}) + body<std::uint16_t>(small), ShardFormat::llmc_u16, small);
  check(header({20240801, 7, 5}) + body<std::uint32_t>(large), ShardFormat::llmc_u32, large);
  check(body<std::uint16_t>(small), ShardFormat::raw_u16, small);
  check(bin_tok(1, 4, 5, 0, 0) + body<std::uint32_t>(large), ShardFormat::bin_tok, large);
  check(bin_tok(2, 4, 5, 250000, 0) + body<std::uint32_t>(large), ShardFormat::bin_tok, large);
  REQUIRE(Shard(path).info()->vocab_size == 250000);
  check(bin_tok(2, 4, 5, 250000, 1) + body<std::uint32_t>(large) + std::string(5, '\1'), ShardFormat::bin_tok,
        large);  // its loss mask is skipped
  check(header({20240520, 1, 0}), ShardFormat::llmc_u16, {});
}

TEST_CASE("bad shards are one sentence with the path", "[shard]") {
  const TempDir folder;
  const std::string path = folder / "x.bin";
  const auto refused = [&](const std::string& content) {
    write_text(path, content);
    const std::string message = error_of([&] { Shard shard(path); });
    REQUIRE(contains(message, path));
    return message;
  };
  REQUIRE(contains(refused(""), "empty file"));
  REQUIRE(contains(refused(header({20240520, 1, 5}) + "123456789"),
                   "truncated: its header says 5 tokens, which needs 1034 bytes, but the file has 1033"));
  REQUIRE(contains(refused(header({20240520, 1, 5}) + "12345678901"), "1034 bytes, but the file has 1035"));
  REQUIRE(contains(refused(header({20240520, 1, 5}).substr(0, 1000)), "truncated: 1000 bytes"));
  REQUIRE(contains(refused(header({20240520, 2, 0})), "version 2"));
  REQUIRE(contains(refused(header({20240801, 1, 0})), "version 1"));
  REQUIRE(contains(refused(header({20240520, 1, -3})), "-3 tokens"));
  REQUIRE(contains(refused(bin_tok(3, 4, 0, 0, 0)), "version 3"));
  REQUIRE(contains(refused(bin_tok(2, 2, 0, 0, 0)), "2 bytes per token"));
  REQUIRE(contains(refused(bin_tok(2, 4, 2, 9, 0) + "1234567"), "truncated"));
  REQUIRE(contains(refused("\1\2\3"), "odd size of 3 bytes"));
  REQUIRE(contains(refused("Once upon a time there was a text file."), "this is text"));
  REQUIRE(contains(refused(std::string("\x28\xb5\x2f\xfd", 4) + std::string(20, '\1')), "zstd"));
  REQUIRE(contains(refused(std::string("\x1f\x8b\x08", 3) + std::string(21, '\1')), "gzip"));
  REQUIRE(contains(error_of([&] { Shard shard(folder / "none.bin"); }), "No such file"));
  REQUIRE(contains(error_of([&] { Shard shard(folder / ""); }), "folder"));
}

TEST_CASE("a token beyond the vocabulary names file, offset and value", "[shard]") {
  const TempDir folder;
  const std::string path = folder / "x.bin";
  write_text(path, header({20240801, 7, 4}) + body<std::uint32_t>({1, 2, 300, -1}));
  const Shard shard(path);
  std::vector<std::int32_t> out(4);
  shard.read(0, 3, out.data(), 301);
  REQUIRE(contains(error_of([&] { shard.read(1, 2, out.data(), 300); }),
                   "token 300 at offset 2 is outside the vocabulary of 300"));
  REQUIRE(contains(error_of([&] { shard.read(3, 1, out.data(), 300); }), "token 4294967295 at offset 3"));
  REQUIRE(contains(error_of([&] { shard.read(3, 1, out.data(), 300); }), path));
  REQUIRE(contains(error_of([&] { shard.read(3, 2, out.data(), 301); }), "tokens 3 to 5 asked for, but it has 4"));
  REQUIRE_FALSE(error_of([&] { shard.read(-1, 1, out.data(), 301); }).empty());
}

TEST_CASE("what is written is read", "[shard]") {
  const TempDir folder;
  for (const std::int64_t vocab_size : {257, 65536, 65537, 200000}) {
    ShardInfo info = kInfo;
    info.vocab_size = vocab_size;
    info.eot = vocab_size - 1;
    const auto last = static_cast<std::int32_t>(vocab_size - 2), eot = static_cast<std::int32_t>(vocab_size - 1);
    ShardWriter writer(folder / ("deep/er/v" + std::to_string(vocab_size)), info, 5);
    writer.document({1, 2, last}, 10);
    writer.append({4, 5}, 7);
    writer.append({6, 7, 8, 9}, 40);
    writer.end_document();
    writer.document({10}, 1);
    REQUIRE(writer.tokens() == 13);
    REQUIRE(writer.documents() == 3);
    REQUIRE(writer.text_bytes() == 58);
    writer.finish();
    REQUIRE(writer.files().size() == 3);
    std::vector<std::int32_t> all;
    ShardInfo sum;
    for (const std::string& file : writer.files()) {
      const Shard shard(file);
      REQUIRE(shard.format() == (vocab_size <= 65536 ? ShardFormat::llmc_u16 : ShardFormat::llmc_u32));
      REQUIRE(shard.info());
      REQUIRE(shard.info()->tokenizer == "bytes");
      REQUIRE(shard.info()->tokenizer_hash == 0xfedcba9876543210);
      REQUIRE(shard.info()->vocab_size == vocab_size);
      REQUIRE(shard.info()->eot == eot);
      sum.documents += shard.info()->documents;
      sum.text_bytes += shard.info()->text_bytes;
      const auto tokens = all_of(shard, vocab_size);
      all.insert(all.end(), tokens.begin(), tokens.end());
    }
    REQUIRE(all == std::vector<std::int32_t>{1, 2, last, eot, 4, 5, 6, 7, 8, 9, eot, 10, eot});
    REQUIRE(sum.documents == 3);
    REQUIRE(sum.text_bytes == 58);
  }
}

TEST_CASE("an unfinished writer leaves nothing", "[shard]") {
  const TempDir folder;
  {
    ShardWriter writer(folder / "x", kInfo, 3);
    for (int i = 0; i < 5; ++i) writer.document({1, 2, 3, 4}, 4);
    REQUIRE(files_in(folder) > 0);
    for (const auto& entry : std::filesystem::directory_iterator(folder / ""))
      REQUIRE_FALSE(entry.path().string().ends_with(".bin"));
  }
  REQUIRE(files_in(folder) == 0);
}

TEST_CASE("writers refuse what would go wrong later", "[shard]") {
  const TempDir folder;
  const auto refused = [&](const std::string& prefix, std::int64_t max_tokens) {
    return error_of([&] { ShardWriter(prefix, kInfo, max_tokens); });
  };
  {
    ShardWriter writer(folder / "x", kInfo, 3);
    writer.document({1}, 1);
    REQUIRE(contains(error_of([&] { writer.document({257}, 1); }), "token 257 is outside the vocabulary of 257"));
    REQUIRE(contains(error_of([&] { writer.document({-1}, 1); }), "token -1"));
    writer.finish();
  }
  REQUIRE(contains(refused(folder / "x", 3), "exists already"));
  REQUIRE(contains(refused(folder / "y", 0), "not 0"));
  REQUIRE(contains(refused(folder / "y", std::int64_t{1} << 31), "2147483648"));
  write_text(folder / "file", "x");
  REQUIRE(contains(refused(folder / "file/x", 3), folder / "file"));
}

TEST_CASE("a side-car that does not fit is refused", "[shard]") {
  const TempDir folder;
  ShardWriter writer(folder / "x", kInfo, 100);
  writer.document({1, 2}, 2);
  writer.finish();
  const std::string shard = writer.files().at(0), side_car = read_file(side_car_of(shard));
  const auto with = [&](const std::string& content) {
    write_text(side_car_of(shard), content);
    const std::string message = error_of([&] { Shard{shard}; });
    REQUIRE(contains(message, side_car_of(shard)));
    return message;
  };
  std::string other = side_car;
  other.replace(other.find("\"tokens\": 3"), 11, "\"tokens\": 4");
  REQUIRE(contains(with(other), "3 tokens, but its side-car"));
  REQUIRE(contains(with("{"), "cannot be understood"));
  REQUIRE(contains(with("{}"), "tokenizer"));
  other = side_car;
  REQUIRE(contains(with(other.replace(other.find("fedcba"), 6, "hello ")), "cannot be understood"));
}

TEST_CASE("the fingerprint sees every page it samples, the size and the header", "[shard]") {
  const TempDir folder;
  const std::string path = folder / "x.bin";
  std::string content = header({20240520, 1, 2 << 20}) + std::string(4 << 20, '\3');
  const auto fingerprint = [&] {
    write_text(path, content);
    return Shard(path).fingerprint();
  };
  const auto first = fingerprint();
  REQUIRE(fingerprint() == first);
  content.back() = '\4';
  const auto second = fingerprint();
  REQUIRE(second != first);
  content[1024] = '\4';
  REQUIRE(fingerprint() != second);
}

TEST_CASE("globs", "[shard]") {
  const TempDir folder;
  for (const char* name : {"b_1.bin", "a_2.bin", "a_1.bin", "x[1].bin"}) write_text(folder / name, "xx");
  const auto expand = [&](const std::vector<std::string>& globs) {
    std::string names;
    for (const std::string& file : expand_globs(globs)) names += std::filesystem::path(file).filename().string() + " ";
    return names;
  };
  REQUIRE(expand({folder / "a_*.bin"}) == "a_1.bin a_2.bin ");
  REQUIRE(expand({folder / "b_*.bin", folder / "*_1.bin"}) == "b_1.bin a_1.bin ");
  REQUIRE(expand({folder / "x[1].bin"}) == "x[1].bin ");  // the name itself
  REQUIRE(contains(error_of([&] { expand({folder / "a_*.bin", folder / "c_*.bin"}); }), folder / "c_*.bin"));
}
