#include <sys/mman.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <limits>

#include "catch.h"
#include "core/arena.h"
#include "core/file.h"
#include "core/json.h"
#include "core/rng.h"
#include "core/safetensors.h"
#include "error_of.h"
#include "temp_dir.h"
#include "places.h"

using namespace nsa;

namespace {

std::string file_of(const std::string& header, std::size_t data_bytes) {
  std::string content(8, '\0');
  for (std::size_t i = 0; i < 8; ++i) content[i] = static_cast<char>(header.size() >> (8 * i) & 0xff);
  return content + header + std::string(data_bytes, '\1');
}

/// A file in memory: thousands of damaged ones would wait for the disk.
class MemoryFile {
 public:
  MemoryFile() : fd_(memfd_create("nsa_test", 0)) {}
  ~MemoryFile() { close(fd_); }
  MemoryFile(const MemoryFile&) = delete;
  MemoryFile& operator=(const MemoryFile&) = delete;
  std::string path() const { return "/proc/self/fd/" + std::to_string(fd_); }
  void hold(const std::string& content) {
    REQUIRE(ftruncate(fd_, 0) == 0);
    REQUIRE(pwrite(fd_, content.data(), content.size(), 0) == static_cast<ssize_t>(content.size()));
  }

 private:
  int fd_;
};

/// The header padded as writers do, so that the data is aligned.
std::string padded(std::string header) {
  while (header.size() % 8) header += ' ';
  return header;
}

std::string open_error(const std::string& content) {
  MemoryFile file;
  file.hold(content);
  const std::string error = error_of([&] { SafetensorsReader reader(file.path()); });
  if (!error.empty()) CHECK(contains(error, file.path()));
  return error;
}
std::string header_error(const std::string& header, std::size_t data_bytes) {
  return open_error(file_of(padded(header), data_bytes));
}

}  // namespace

TEST_CASE("safetensors: what is written is read: types, ranks, empty tensors, metadata") {
  TempDir dir;
  const std::string path = dir.path() + "/t";
  std::vector<float> floats(120);
  for (std::size_t i = 0; i < floats.size(); ++i) floats[i] = static_cast<float>(i) - 0.1f;
  floats[3] = std::numeric_limits<float>::quiet_NaN();
  std::vector<std::int32_t> ints{-1, 2, std::numeric_limits<std::int32_t>::min()};
  std::vector<std::uint16_t> halves{1, 2, 3};
  const std::vector<NamedTensor> tensors{
      {"half", {halves.data(), DType::bf16, {3}}},  // 6 bytes: a 4-byte tensor must not follow
      {"b.weight", {floats.data(), DType::f32, {2, 3, 4, 5, 1}}},
      {"empty", {nullptr, DType::f32, {0, 7}}},
      {"a \"quoted\" \xc3\xa9", {ints.data(), DType::i32, {3}}}};
  write_safetensors(path, tensors, {{"format", "pt"}, {"config", "{\"a\": 1}"}});
  const SafetensorsReader reader(path);
  CHECK(reader.tensors().size() == 4);
  CHECK(reader.metadata() == std::map<std::string, std::string>{{"format", "pt"}, {"config", "{\"a\": 1}"}});
  for (const auto& [name, tensor] : tensors) {
    const Tensor& read = reader.at(name);
    CHECK(read.shape == tensor.shape);
    CHECK(read.dtype == tensor.dtype);
    if (tensor.bytes()) CHECK(std::memcmp(read.data, tensor.data, tensor.bytes()) == 0);
  }
  const std::string content = read_file(path);
  std::uint64_t length = 0;
  std::memcpy(&length, content.data(), 8);
  CHECK((8 + length) % 64 == 0);
  CHECK(content.size() == 8 + length + 480 + 12 + 6);
}

TEST_CASE("safetensors: no tensors at all") {
  TempDir dir;
  write_safetensors(dir.path() + "/t", {}, {});
  CHECK(SafetensorsReader(dir.path() + "/t").tensors().empty());
}

TEST_CASE("safetensors: on_bytes sees the file, in order, also above a piece's size") {
  TempDir dir;
  std::vector<float> big(700001, 1.5f);
  big[123456] = -7;
  std::string seen;
  write_safetensors(dir.path() + "/t", {{"big", {big.data(), DType::f32, {700001}}}}, {},
                    [&](const void* p, std::size_t n) { seen.append(static_cast<const char*>(p), n); });
  CHECK(seen == read_file(dir.path() + "/t"));
}

TEST_CASE("safetensors: what cannot be written") {
  TempDir dir;
  const std::string path = dir.path() + "/t";
  float x = 1;
  const Tensor one{&x, DType::f32, {1}};
  CHECK(contains(error_of([&] {
                   write_safetensors(path, {{"a", one}, {"a", one}}, {});
                 }),
                 "two tensors are named \"a\""));
  CHECK(contains(error_of([&] {
                   write_safetensors(path, {{"a", Tensor{nullptr, DType::f32, {4}}}}, {});
                 }),
                 "has no data"));
  CHECK(contains(error_of([&] { write_safetensors(path, {{"a", Tensor{}}}, {}); }), "has no data"));
  CHECK(contains(error_of([&] { write_safetensors(path, {{"\xff", one}}, {}); }), "UTF-8"));
  CHECK_FALSE(std::filesystem::exists(path));
  CHECK(contains(error_of([&] {
                   write_safetensors(dir.path() + "/none/t", {{"a", one}}, {});
                 }),
                 "none/t: No such file"));
  std::filesystem::create_symlink("/dev/full", dir.path() + "/full");
  CHECK(contains(error_of([&] {
                   write_safetensors(dir.path() + "/full", {{"a", one}}, {});
                 }),
                 "No space left on device"));
}

TEST_CASE("safetensors: an absent tensor names the closest") {
  TempDir dir;
  float x = 1;
  write_safetensors(dir.path() + "/t", {{"model.norm.weight", {&x, DType::f32, {1}}}}, {});
  const SafetensorsReader reader(dir.path() + "/t");
  CHECK(contains(error_of([&] { reader.at("model.nrom.weight"); }),
                 "/t has no tensor \"model.nrom.weight\"; did you mean \"model.norm.weight\"?"));
  CHECK(contains(error_of([&] { reader.at("zzz"); }), "has no tensor \"zzz\""));
}

TEST_CASE("safetensors: files of others") {
  CHECK(header_error(R"({"a":{"dtype":"F32","shape":[],"data_offsets":[0,4]}})", 4) == "");
  const std::string unordered =
      R"({"b":{"dtype":"F32","shape":[1],"data_offsets":[4,8]},"a":{"dtype":"I32","shape":[1],"data_offsets":[0,4]},)"
      R"("e":{"dtype":"F32","shape":[0],"data_offsets":[4,4]}})";
  CHECK(header_error(unordered, 8) == "");
  TempDir dir;
  std::ofstream(dir.path() + "/f", std::ios::binary)
      << file_of(padded(R"({"a":{"dtype":"F32","shape":[],"data_offsets":[0,4]}})"), 4);
  CHECK(SafetensorsReader(dir.path() + "/f").at("a").shape == Shape{1});
}

TEST_CASE("safetensors: damaged and foreign files are one sentence") {
  CHECK(contains(error_of([] { SafetensorsReader reader("/nonexistent/x"); }),
                 "cannot read /nonexistent/x: No such file or directory"));
  CHECK(contains(error_of([] { SafetensorsReader reader("/"); }), "not a file"));
  CHECK(contains(open_error(""), "has 0 bytes"));
  CHECK(contains(open_error("1234567"), "has 7 bytes"));
  CHECK(contains(open_error(std::string(8, '\xff')), "18446744073709551615"));
  CHECK(contains(open_error(std::string(8, '\0')), "does not start with '{'"));
  CHECK(contains(open_error("PK\x03\x04 this is some other kind of file"), "not a safetensors file"));
  CHECK(contains(open_error(file_of("hello   ", 0)), "does not start with '{'"));
  CHECK(contains(open_error(file_of("{\"a\": {}  ", 0)), "not valid JSON"));
  CHECK(contains(header_error(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[1],)"
                              R"("data_offsets":[4,8]}})",
                              8),
                 "given twice"));
  CHECK(contains(header_error(R"({"a":5})", 0), "needs dtype, shape and data_offsets"));
  CHECK(contains(header_error(R"({"a":{"dtype":"F64","shape":[1],"data_offsets":[0,8]}})", 8),
                 "\"a\" has dtype \"F64\"; F32, BF16 and I32 can be read"));
  CHECK(contains(header_error(R"({"a":{"dtype":"I64","shape":[1],"data_offsets":[0,8]}})", 8), "I64"));
  CHECK(contains(header_error(R"({"a":{"dtype":4,"shape":[1],"data_offsets":[0,8]}})", 8), "dtype 4"));
  CHECK(contains(header_error(R"({"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}})", 4),
                 "expected a list of sizes"));
  CHECK(contains(header_error(R"({"a":{"dtype":"F32","shape":[1.0],"data_offsets":[0,4]}})", 4),
                 "expected a list of sizes"));
  CHECK(contains(header_error(R"({"a":{"dtype":"F32","shape":[1,1,1,1,1,1],"data_offsets":[0,4]}})", 4), "6 dims"));
  CHECK(contains(header_error(R"({"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0]}})", 0),
                 "larger than any file"));
  CHECK(contains(header_error(R"({"a":{"dtype":"F32","shape":[18446744073709551615],"data_offsets":[0,4]}})", 4),
                 "larger than any file"));
  CHECK(contains(header_error(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}})", 4),
                 "takes 8 bytes, but its data_offsets are [0, 4]"));
  CHECK(contains(header_error(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}})", 4),
                 "data_offsets are [4, 0]"));
  CHECK(contains(header_error(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0]}})", 4), "expected [begin, end]"));
  CHECK(
      contains(header_error(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,-4]}})", 4), "expected [begin, end]"));
  CHECK(contains(header_error(R"({"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}})", 12), "truncated"));
  CHECK(contains(header_error(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[2],)"
                              R"("data_offsets":[4,12]}})",
                              12),
                 "\"a\" and \"b\" overlap"));
  CHECK(contains(header_error(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})", 8),
                 "4 bytes before tensor \"a\" belong to no tensor"));
  CHECK(contains(header_error(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})", 8), "4 bytes at the end"));
  CHECK(
      contains(header_error(R"({"a":{"dtype":"BF16","shape":[1],"data_offsets":[0,2]},"b":{"dtype":"F32","shape":[1],)"
                            R"("data_offsets":[2,6]}})",
                            6),
               "not a multiple"));
  CHECK(contains(header_error(R"({"__metadata__":{"a":1}})", 0), "may hold only strings"));
  CHECK(contains(header_error(R"({"__metadata__":[]})", 0), "not an object"));
}

TEST_CASE("safetensors: every truncation and random damage end in a sentence or a readable file, never elsewhere") {
  TempDir dir;
  const std::string path = dir.path() + "/t";
  std::vector<float> data(50, 2.0f);
  write_safetensors(path,
                    {{"one", {data.data(), DType::f32, {5, 10}}},
                     {"two", {data.data(), DType::i32, {7}}},
                     {"three", {data.data(), DType::bf16, {3, 0}}}},
                    {{"format", "pt"}});
  const std::string good = read_file(path);
  MemoryFile file;
  for (std::size_t n = 0; n < good.size(); ++n) {
    file.hold(good.substr(0, n));
    CHECK(error_of([&] { SafetensorsReader reader(file.path()); }) != "");
  }
  const Rng rng(1, "fuzz");
  const std::size_t header_end = good.find("  ");
  for (std::uint64_t i = 0; i < 4000; ++i) {
    std::string bad = good;
    for (std::uint64_t k = 0; k <= rng.bits(4 * i) % 3; ++k)
      bad[rng.bits(100000 + 8 * i + k) % header_end] = static_cast<char>(rng.bits(200000 + 8 * i + k));
    file.hold(bad);
    double sum = 0;
    error_of([&] {  // anything but Error escapes and fails the test
      const SafetensorsReader reader(file.path());
      for (const auto& [name, tensor] : reader.tensors()) {
        for (std::size_t b = 0; b < tensor.bytes(); ++b) sum += static_cast<const unsigned char*>(tensor.data)[b];
      }
    });
    CHECK(sum >= 0);
  }
}

TEST_CASE("safetensors: the golden files open") {
  std::size_t files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(std::string(kSourceDir) + "/tests/golden")) {
    if (entry.path().extension() != ".safetensors") continue;
    const SafetensorsReader reader(entry.path().string());
    CHECK(reader.metadata().count("config") == 1);
    CHECK_FALSE(reader.tensors().empty());
    ++files;
  }
  CHECK(files >= 1);
}
