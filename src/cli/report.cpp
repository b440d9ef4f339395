// nsa report RUN... [--out DIR] [--term]: curves, table and verdict of finished or running runs, and of step,loss files
// of other programs.
#include "report/page.h"

#include <sys/stat.h>

#include <cstdio>

#include "cli/verbs.h"
#include "core/program.h"
#include "core/device.h"
#include "core/text.h"
#include "report/terminal.h"

namespace nsa::cli {

namespace {

/// "LABEL=PATH" puts a run into a named group; a path that exists as it stands is a path.
report::Source source_of(const std::string& argument) {
  struct stat info {};
  const std::size_t equals = argument.find('=');
  if (equals == std::string::npos || equals == 0 || ::stat(argument.c_str(), &info) == 0)
    return {expand_home(argument), "", ""};
  report::Source source{expand_home(argument.substr(equals + 1)), argument.substr(0, equals), ""};
  source.group = report::without_seed(source.group, &source.seed);
  return source;
}

}  // namespace

Exit report(CLI::App& app, int argc, char** argv) {
  std::vector<std::string> arguments;
  std::string out = "report";
  double half_life = -1;
  bool term = false;
  int threads = 0;
  app.add_option("runs", arguments,
                 "run folders, metrics.jsonl files, or TSV/CSV/JSONL of step,loss; LABEL=PATH names the group; the "
                 "first group is what others are compared with")
      ->required();
  CLI::Option* out_option =
      app.add_option("--out", out, "folder for report.html, curves.svg and curves.tsv")->transform(home_path());
  app.add_option("--smooth", half_life,
                 "half-life of the moving average in steps; 0: none; default: a two-hundredth of the longest run")
      ->check(CLI::NonNegativeNumber);
  app.add_flag("--term", term, "print the table and a plot in characters; files only if --out is given");
  app.add_option("--threads", threads, "runs read at once; 0: as many as cores this process may use")
      ->check(CLI::Range(0, 4096));
  app.parse(argc, argv);

  std::vector<report::Source> sources;
  for (const std::string& argument : arguments) sources.push_back(source_of(argument));
  const report::PageInfo info{now_utc(), command_line("nsa", argc, argv)};
  const bool files = !term || out_option->count() > 0;
  std::vector<report::History> runs;
  const report::Comparison comparison =
      report::make_report(sources, files ? out : "", half_life, info, threads ? threads : available_cores(), runs);
  if (term) {
    std::fputs(report::report_text(comparison, 100).c_str(), stdout);
  } else {
    for (const std::string& verdict : report::verdicts(comparison)) std::printf("%s\n", verdict.c_str());
  }
  if (files) std::printf("%s/report.html, curves.svg, curves.tsv\n", out.c_str());
  return Exit::ok;
}

}  // namespace nsa::cli
