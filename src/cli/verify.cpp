// nsa verify FILE.safetensors: is what we compute what an independent implementation computed?
#include "eval/verify.h"

#include <cstdio>

#include "cli/verbs.h"
#include "core/device.h"
#include "core/text.h"

namespace nsa::cli {

Exit verify(CLI::App& app, int argc, char** argv) {
  std::vector<std::string> paths;
  std::string device = "cpu", precision = "f32";
  int threads = 0;
  app.add_option("files", paths, "golden files (format: docs/golden.md)")->required();
  app.add_option("--device", device, "where to compute")->check(CLI::IsMember({"cpu"}));
  app.add_option("--precision", precision, "number format of the computation")->check(CLI::IsMember({"f32"}));
  app.add_option("--threads", threads, "CPU threads; 0: all cores")->check(CLI::NonNegativeNumber);
  app.parse(argc, argv);

  bool all_ok = true;
  for (const std::string& path : paths) {
    const VerifyReport report = nsa::verify(path, threads ? threads : available_cores());
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
