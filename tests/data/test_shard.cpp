#include "data/shard_writer.h"

#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <thread>

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

TEST_CASE("what a file without a header is not", "[shard]") {
  const TempDir folder;
  const std::string path = folder / "x.bin";
  std::uint64_t state = 1;
  const auto random = [&](std::uint64_t below) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    return static_cast<std::int32_t>((state >> 33) % below);
  };
  const auto many = [&](std::size_t n, std::uint64_t below) {  // small ids are frequent, as in a text
    std::vector<std::int32_t> tokens(n);
    for (std::int32_t& token : tokens) token = std::min(random(below), random(below));
    return tokens;
  };
  const auto said = [&](const std::string& content, std::int64_t vocab_size, Headerless as = Headerless::guess) {
    write_text(path, content);
    return error_of([&] {
      const Shard shard(path, as);
      shard.check_guess(vocab_size);
    });
  };
  for (const std::int64_t V : {257, 1000, 50257, 65536}) {
    for (const std::size_t n : {std::size_t{4}, std::size_t{100}, std::size_t{3000}, std::size_t{200'000}}) {
      CAPTURE(V, n);
      const auto tokens = many(n, static_cast<std::uint64_t>(V));
      CHECK(said(body<std::uint16_t>(tokens), V) == "");
      if (n < 100) continue;
      for (const std::string& wide : {body<std::uint32_t>(tokens), body<std::int64_t>(tokens)}) {
        const std::string message = said(wide, V);
        CHECK(contains(message, "wider numbers"));
        CHECK(contains(message, path));
        CHECK(contains(message, "data.headerless"));
        CHECK(said(wide, V, Headerless::uint16) == "");
      }
    }
  }
  std::string floats;
  for (int i = 0; i < 20'000; ++i) {
    const float x = static_cast<float>(random(2'000'001) - 1'000'000) / 1e6f;
    floats.append(reinterpret_cast<const char*>(&x), sizeof x);
  }
  CHECK(contains(said(floats, 65536), "float32"));
  CHECK(contains(said(body<std::uint16_t>(many(100, 100)), 65537), "cannot hold a vocabulary of 65537"));
  CHECK(contains(said(body<std::uint16_t>({1, 2, 300, 4}), 300), "number 2 is 300, outside the vocabulary of 300"));
  std::string noise(1 << 16, '\0');
  for (char& c : noise) c = static_cast<char>(random(256));
  noise[0] = 0;
  CHECK(contains(said(noise, 50257), "outside the vocabulary"));
  CHECK(contains(said(noise, 65536), "equally frequent"));
  for (const auto& [content, what] : std::vector<std::pair<std::string, std::string>>{
           {std::string("\xFD\x37zXZ\0", 6) + noise, "xz-compressed data"},
           {"\xFF\xD8\xFF\xE0" + noise, "a JPEG image"},
           {std::string("\x40\0\0\0\0\0\0\0{\"w\"", 12) + noise, "a safetensors file"},
           {"Gr\xC3\xBC\xC3\x9F"
            "e aus \xE6\x97\xA5\xE6\x9C\xAC\n",
            "text"},
           {std::string(100'000, 'w'), "text"}}) {
    CHECK(contains(said(content, 65536), "this is " + what));
  }
  const std::vector<std::int32_t> large{0, 70000, 3};
  write_text(path, body<std::uint32_t>(large));
  const Shard shard(path, Headerless::uint32);
  CHECK(shard.format() == ShardFormat::raw_u32);
  CHECK(all_of(shard) == large);
  CHECK(contains(said("\1\2\3\4\5\6", 10, Headerless::uint32), "odd size of 6 bytes"));
}

TEST_CASE("a shard that becomes shorter while it is read is an error with its name", "[shard]") {
  const TempDir folder;
  const std::string path = folder / "x.bin";
  write_text(path, header({20240520, 1, 1 << 20}) + std::string(2 << 20, '\3'));
  const Shard shard(path);
  std::vector<std::int32_t> out(4000);
  shard.read(1'000'000, 4000, out.data(), 1000);
  std::filesystem::resize_file(path, 100'000);
  for (int again = 0; again < 3; ++again) {
    const std::string message = error_of([&] { shard.read(1'000'000, 4000, out.data(), 1000); });
    REQUIRE(contains(message, path));
    REQUIRE(contains(message, "no longer has bytes 2001024 to 2009024"));
  }
  REQUIRE(contains(error_of([&] { shard.fingerprint(); }), path));
  std::thread([&] { REQUIRE(contains(error_of([&] { shard.read(1'000'000, 1, out.data(), 1000); }), path)); }).join();
  shard.read(0, 4000, out.data(), 1000);  // what is still there
  REQUIRE(out[3999] == 0x0303);
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

TEST_CASE("two writers of one prefix: the second is refused", "[shard]") {
  const TempDir folder;
  const auto second = [&] { return error_of([&] { ShardWriter(folder / "x", kInfo, 3); }); };
  {
    ShardWriter writer(folder / "x", kInfo, 3);
    writer.document({1, 2, 3, 4}, 4);
    REQUIRE(contains(second(), "shards " + (folder / "x") + " is in use by process " + std::to_string(getpid())));
    REQUIRE(error_of([&] { ShardWriter(folder / "y", kInfo, 3); }).empty());
    // Without locks, the one that finishes last must not write over the other's result.
    write_text(folder / "x_000001.bin", "somebody's");
    REQUIRE(contains(error_of([&] { writer.finish(); }), "exists by now"));
  }
  REQUIRE(files_in(folder) == 1);
  REQUIRE(read_file(folder / "x_000001.bin") == "somebody's");
  std::filesystem::remove(folder / "x_000001.bin");
  // The lock of a holder that was killed is free.
  const pid_t child = fork();
  if (child == 0) {
    new ShardWriter(folder / "x", kInfo, 3);
    raise(SIGKILL);
  }
  int status = 0;
  waitpid(child, &status, 0);
  REQUIRE(std::filesystem::exists(folder / "x.lock"));
  REQUIRE(second().empty());
  REQUIRE_FALSE(std::filesystem::exists(folder / "x.lock"));
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
