// Every golden file, and that a wrong program would be noticed: a file with one number changed must fail.
#include <cmath>
#include <filesystem>
#include <list>
#include <nlohmann/json.hpp>

#include "catch.h"
#include "core/file.h"
#include "core/safetensors.h"
#include "device_under_test.h"
#include "error_of.h"
#include "eval/golden_config.h"
#include "eval/verify.h"
#include "ref/nsa_layer.h"
#include "temp_dir.h"
#include "places.h"

using namespace nsa;
using nsa::test::device_under_test;
namespace fs = std::filesystem;

namespace {

VerifyOptions on(int threads, DType type = DType::f32) {
  return {device_under_test() == "fake" ? DeviceType::fake : DeviceType::cpu, threads, type};
}

std::vector<std::string> golden_files() {
  std::vector<std::string> files;
  for (const auto& entry : fs::directory_iterator(std::string(kSourceDir) + "/tests/golden"))
    if (entry.path().extension() == ".safetensors") files.push_back(entry.path().string());
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
    const VerifyReport report = verify(path, on(2));
    for (const VerifyRow& row : report.rows) {
      INFO(path << " " << row.name << ": " << row.error << " > " << row.tolerance << " " << row.worst);
      CHECK(row.ok());
    }
    CHECK(report.ok());
    CHECK(report.rows.size() >= 6);
  }
}

TEST_CASE("every golden file in bf16 is as close as numbers rounded to bf16 allow", "[eval]") {
  for (const std::string& path : golden_files()) {
    const VerifyReport report = verify(path, on(2, DType::bf16));
    double furthest = 0;
    for (const VerifyRow& row : report.rows) {
      INFO(path << " " << row.name << ": " << row.error << " > " << row.tolerance << " " << row.worst);
      CHECK(row.ok());
      if (row.name.rfind("grad", 0) == 0) furthest = std::max(furthest, row.error);
    }
    CHECK(furthest > 1e-3);  // it was bf16 indeed
    CHECK(furthest < 0.1);
  }
}

TEST_CASE("a golden file with one changed number fails in that tensor", "[eval]") {
  const TempDir dir;
  for (const char* tensor : {"grad.g_proj.weight", "o_slc", "y", "grad.compress_v.pos"}) {
    const VerifyReport report = verify(damaged(std::string(kSourceDir) + "/tests/golden/nsa_small.safetensors", tensor,
                                               dir.path() + "/damaged.safetensors"),
                                       on(1));
    for (const VerifyRow& row : report.rows) CHECK(row.ok() == (row.name != tensor));
  }
}

namespace {

// nsa_small with a window of one token, computed in float64 by the reference: the softmax over one key is 1 whatever
// the key, so the gradient of the window's keys is exactly zero.
void write_window_of_one(const std::string& target) {
  const SafetensorsReader file(std::string(kSourceDir) + "/tests/golden/nsa_small.safetensors");
  const std::int64_t B = file.at("x").dim(0), T = file.at("x").dim(1);
  ModelConfig model = read_golden_config(file).model;
  model.attention.window = 1;
  const test::ref::NsaLayer layer(model, B, T);
  const auto doubles = [&](const std::string& name) {
    const Tensor& t = file.at(name);
    return std::vector<double>(t.f32(), t.f32() + t.numel());
  };
  test::ref::NamedValues<double> params;
  for (const auto& [name, t] : file.tensors())
    if (name.rfind("param.", 0) == 0) params[name.substr(6)] = doubles(name);
  const std::vector<double> x = doubles("x"), dy = doubles("dy");
  const auto f = test::ref::layer_forward(layer, x, params);
  auto g = test::ref::layer_backward(layer, dy, x, params, f);
  auto& zero = g.params.at("k_proj_win.weight");
  for (double v : zero) REQUIRE(std::abs(v) < 1e-12);
  zero.assign(zero.size(), 0.0);

  std::vector<NamedTensor> tensors;
  std::list<std::vector<float>> owned;
  const auto put = [&](const std::string& name, const std::vector<double>& v) {
    owned.emplace_back(v.begin(), v.end());
    tensors.push_back({name, {owned.back().data(), DType::f32, file.at(name).shape}});
  };
  const auto heads_first = [&](const std::vector<double>& v) {  // (B,T,H,X) -> (B,H,T,X)
    const std::int64_t H = layer.z.H, X = static_cast<std::int64_t>(v.size()) / (B * T * H);
    std::vector<double> out;
    for (std::int64_t b = 0; b < B; ++b)
      for (std::int64_t h = 0; h < H; ++h)
        for (std::int64_t t = 0; t < T; ++t)
          out.insert(out.end(), &v[static_cast<std::size_t>(((b * T + t) * H + h) * X)],
                     &v[static_cast<std::size_t>(((b * T + t) * H + h) * X)] + X);
    return out;
  };
  for (const auto& [name, t] : file.tensors())
    if (name == "x" || name == "dy" || name.rfind("param.", 0) == 0) tensors.push_back({name, t});
  put("y", f.y), put("dx", g.dx), put("gates", heads_first(f.gates));
  put("o_cmp", heads_first(f.branch[0].o)), put("o_slc", heads_first(f.branch[1].o));
  put("o_win", heads_first(f.branch[2].o));
  for (const auto& [name, v] : g.params) put("grad." + name, v);
  std::vector<std::int32_t> selected(f.selected.begin(), f.selected.end());
  tensors.push_back({"selected", {selected.data(), DType::i32, file.at("selected").shape}});
  auto metadata = file.metadata();
  auto config = nlohmann::json::parse(metadata.at("config"));
  config["window"] = 1;
  metadata["config"] = config.dump();
  write_safetensors(target, tensors, metadata);
}

}  // namespace

TEST_CASE("a gradient whose true value is zero is compared with the noise of the others", "[eval]") {
  const TempDir dir;
  const std::string path = dir.path() + "/window_of_one.safetensors";
  write_window_of_one(path);
  const VerifyReport report = verify(path, on(2));
  for (const VerifyRow& row : report.rows) {
    INFO(row.name << ": " << row.error << " > " << row.tolerance << " " << row.worst);
    CHECK(row.ok());
    if (row.name == "grad.k_proj_win.weight") CHECK(contains(row.note, "cancels"));
  }
  // and a program that computes something there is still caught
  const VerifyReport wrong =
      verify(damaged(path, "grad.k_proj_win.weight", dir.path() + "/damaged.safetensors"), on(2));
  for (const VerifyRow& row : wrong.rows) CHECK(row.ok() == (row.name != "grad.k_proj_win.weight"));
}

TEST_CASE("files that are no golden files are one sentence", "[eval]") {
  const TempDir dir;
  std::vector<float> one{1};
  const std::vector<NamedTensor> tensors{{"x", {one.data(), DType::f32, {1}}}};
  const std::string path = dir.path() + "/other.safetensors";
  write_safetensors(path, tensors, {{"format", "pt"}});
  CHECK(contains(error_of([&] { verify(path, on(1)); }), path));
  CHECK(contains(error_of([&] { verify(path, on(1)); }), "kind"));
  write_safetensors(path, tensors,
                    {{"kind", "attention_layer"}, {"config", R"({"attention": "nsa", "num_headz": 3})"}});
  CHECK(contains(error_of([&] { verify(path, on(1)); }), "num_headz"));
}
