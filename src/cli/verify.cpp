// nsa verify FILE.safetensors: is what we compute what an independent implementation computed?
#include "eval/verify.h"

#include <algorithm>
#include <cstdio>

#include "cli/verbs.h"
#include "core/device.h"
#include "core/text.h"

namespace nsa::cli {

namespace {

int index_in(const Choices& spellings, const std::string& word) {
  return static_cast<int>(std::find(spellings.begin(), spellings.end(), word) - spellings.begin());
}

}  // namespace

Exit verify(CLI::App& app, int argc, char** argv) {
  std::vector<std::string> paths;
  std::string device = "cpu", precision = "f32";
  VerifyOptions options;
  options.threads = available_cores();
  app.add_option("files", paths, "golden files (format: docs/golden.md)")->required()->transform(home_path());
  app.add_option("--device", device, "where to compute")->check(CLI::IsMember(kDeviceTypes));
  app.add_option("--precision", precision, "number format of the computation")->check(CLI::IsMember(kPrecisions));
  app.add_option("--threads", options.threads, "CPU threads; by default all cores")->check(CLI::PositiveNumber);
  app.parse(argc, argv);
  options.device = static_cast<DeviceType>(index_in(kDeviceTypes, device));
  options.type = precision == "bf16" ? DType::bf16 : DType::f32;

  bool all_ok = true;
  for (const std::string& path : paths) {
    const VerifyReport report = nsa::verify(path, options);
    Table table{fmt::format("{} ({}, {}, {})", path, report.kind, device, precision),
                {"tensor", "relative error", "tolerance", "", "worst"},
                {}};
    for (const VerifyRow& row : report.rows) {
      table.rows.push_back({row.name, fmt::format("{:.2e}", row.error), fmt::format("{:.0e}", row.tolerance),
                            row.ok() ? "ok" : "WRONG", row.note.empty() ? row.worst : row.note});
    }
    std::fputs(to_text(table).c_str(), stdout);
    std::printf("%s: %s\n\n", path.c_str(), report.ok() ? "all within tolerance" : "NOT within tolerance");
    all_ok = all_ok && report.ok();
  }
  return all_ok ? Exit::ok : Exit::error;
}

}  // namespace nsa::cli
