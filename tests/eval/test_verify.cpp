// Every golden file, and that a wrong program would be noticed: a file with one number changed must fail.
#include <filesystem>

#include "catch.h"
#include "core/file.h"
#include "core/safetensors.h"
#include "error_of.h"
#include "eval/golden_config.h"
#include "eval/verify.h"
#include "temp_dir.h"
#include "places.h"

using namespace nsa;
namespace fs = std::filesystem;

namespace {

std::vector<std::string> golden_files() {
  std::vector<std::string> files;
  for (const auto& entry : fs::directory_iterator(std::string(kSourceDir) + "/tests/golden"))
    files.push_back(entry.path().string());
  return files;
}

// A copy of a golden file with 1 added to one element of one tensor.
std::string damaged(const std::string& source, const std::string& tensor, const std::string& target) {
  const SafetensorsReader file(source);
  std::vector<NamedTensor> tensors;
  std::vector<std::vector<float>> owned;
  for (const auto& [name, t] : file.tensors()) {
    if (name != tensor) {
      tensors.push_back({name, t});
      continue;
    }
    owned.emplace_back(t.f32(), t.f32() + t.numel());
    owned.back()[static_cast<std::size_t>(t.numel() / 2)] += 1.0f;
    tensors.push_back({name, {owned.back().data(), DType::f32, t.shape}});
  }
  write_safetensors(target, tensors, file.metadata());
  return target;
}

}  // namespace

TEST_CASE("every golden file is within tolerance", "[eval]") {
  REQUIRE(golden_files().size() >= 11);
  for (const std::string& path : golden_files()) {
    const VerifyReport report = verify(path, 2);
    for (const VerifyRow& row : report.rows) {
      INFO(path << " " << row.name << ": " << row.error << " > " << row.tolerance << " " << row.worst);
      CHECK(row.ok());
    }
    CHECK(report.ok());
    CHECK(report.rows.size() >= 6);
  }
}

TEST_CASE("a golden file with one changed number fails in that tensor", "[eval]") {
  const TempDir dir;
  for (const char* tensor : {"grad.g_proj.weight", "o_slc", "y", "grad.compress_v.pos"}) {
    const VerifyReport report = verify(damaged(std::string(kSourceDir) + "/tests/golden/nsa_small.safetensors", tensor,
                                               dir.path() + "/damaged.safetensors"),
                                       1);
    for (const VerifyRow& row : report.rows) CHECK(row.ok() == (row.name != tensor));
  }
}

TEST_CASE("files that are no golden files are one sentence", "[eval]") {
  const TempDir dir;
  std::vector<float> one{1};
  const std::vector<NamedTensor> tensors{{"x", {one.data(), DType::f32, {1}}}};
  const std::string path = dir.path() + "/other.safetensors";
  write_safetensors(path, tensors, {{"format", "pt"}});
  CHECK(contains(error_of([&] { verify(path, 1); }), path));
  CHECK(contains(error_of([&] { verify(path, 1); }), "kind"));
  write_safetensors(path, tensors,
                    {{"kind", "attention_layer"}, {"config", R"({"attention": "nsa", "num_headz": 3})"}});
  CHECK(contains(error_of([&] { verify(path, 1); }), "num_headz"));
}
