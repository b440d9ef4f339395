// What the data tools' command lines share.
#pragma once

#include <CLI/CLI.hpp>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "core/check.h"
#include "core/program.h"
#include "data/corpus.h"

namespace nsa::data {

/// Reads the command line, then runs `body` (which returns the exit code). --help: prints and returns 0; a wrong
/// command line: 2.
template <class F>
int run_tool(CLI::App& app, int argc, char** argv, F&& body) {
  return run_program([&] {
    try {
      app.parse(argc, argv);
    } catch (const CLI::ParseError& e) {
      if (e.get_exit_code() != 0) fail_usage("{}; --help shows the arguments", e.what());
      app.exit(e);  // --help
      flush_results();
      return Exit::ok;
    }
    return static_cast<Exit>(body());
  });
}

/// The options of tools that read a corpus.
struct CorpusArguments {
  std::vector<std::string> inputs;
  std::string separator = "none";
  CorpusOptions options;

  void add_to(CLI::App& app) {
    app.add_option("inputs", inputs,
                   "files, folders and globs of text: plain or JSONL with \"text\", also .gz and .zst")
        ->required();
    app.add_option("--format", options.format, "auto: .jsonl and .ndjson are JSONL, everything else is plain text")
        ->transform(CLI::CheckedTransformer(std::map<std::string, TextFormat>{
            {"auto", TextFormat::automatic}, {"text", TextFormat::text}, {"jsonl", TextFormat::jsonl}}))
        ->default_str("auto");
    app.add_option("--document-separator", separator,
                   "in plain text: none (a file is one document), blank-line (runs of blank lines separate documents), "
                   "or a text that alone on a line does")
        ->capture_default_str();
    app.add_option("--on-error", options.on_bad,
                   "invalid UTF-8 or a broken JSON line: fail, or skip the line and count it")
        ->transform(CLI::CheckedTransformer(std::map<std::string, OnBad>{{"fail", OnBad::fail}, {"skip", OnBad::skip}}))
        ->default_str("fail");
  }
  CorpusOptions corpus_options() const {
    CorpusOptions result = options;
    result.blank_lines = separator == "blank-line";
    if (!result.blank_lines && separator != "none") result.separator = separator;
    return result;
  }
};

}  // namespace nsa::data
