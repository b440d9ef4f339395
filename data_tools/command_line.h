// What the data tools' command lines share.
#pragma once

#include <CLI/CLI.hpp>
#include <algorithm>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "cli/paths.h"
#include "core/check.h"
#include "core/program.h"
#include "core/text.h"
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
  CLI::Option* text_field = nullptr;

  void add_to(CLI::App& app) {
    app.add_option("inputs", inputs,
                   "files, folders and globs of text: plain or JSONL, also gzip and zstd; recognised by content")
        ->required()
        ->transform(cli::home_path());
    app.add_option("--format", options.format, "what to take the inputs for; auto: what their content looks like")
        ->transform(CLI::CheckedTransformer(std::map<std::string, TextFormat>{
            {"auto", TextFormat::automatic}, {"text", TextFormat::text}, {"jsonl", TextFormat::jsonl}}))
        ->default_str("auto");
    text_field = app.add_option("--text-field", options.text_field,
                                "of JSONL: the key of the text; a.b is the key b in the object a")
                     ->capture_default_str();
    app.add_option("--document-separator", separator,
                   "in plain text: none (a file is one document), blank-line (runs of blank lines separate documents), "
                   "or a text that alone on a line does")
        ->capture_default_str();
    app.add_option("--on-error", options.on_bad,
                   "invalid UTF-8, broken JSON or no text in a line: fail, or skip the line and count it")
        ->transform(CLI::CheckedTransformer(std::map<std::string, OnBad>{{"fail", OnBad::fail}, {"skip", OnBad::skip}}))
        ->default_str("fail");
  }
  CorpusOptions corpus_options() const {
    CorpusOptions result = options;
    result.blank_lines = separator == "blank-line";
    if (!result.blank_lines && separator != "none") result.separator = separator;
    return result;
  }
  /// The corpus, once it is certain that every option given is for some of it.
  Corpus open(CorpusOptions with) const {
    Corpus corpus(inputs, std::move(with));
    const auto none_is = [&](TextFormat format) {
      const auto other = [&](const InputFile& file) {
        return file.format != format && file.format != TextFormat::automatic;
      };
      return !corpus.files().empty() && std::all_of(corpus.files().begin(), corpus.files().end(), other);
    };
    const auto first = [&] { return corpus.files().front().path; };
    if (text_field->count() > 0 && none_is(TextFormat::jsonl))
      fail_usage("--text-field {}: no input is JSONL ({} is plain text)", options.text_field, first());
    if (separator != "none" && none_is(TextFormat::text))
      fail_usage("--document-separator {}: no input is plain text ({} is JSONL)", separator, first());
    return corpus;
  }
};

/// What the inputs were taken for.
class TakenTable {
 public:
  explicit TakenTable(const Corpus& corpus) : corpus_(corpus) {}

  /// A document of this file, or a part of one. Documents without text do not count.
  void count(std::size_t file, std::size_t text_bytes, bool ends_document) {
    Row& row = row_of(corpus_.files()[file].format);
    row.bytes += static_cast<std::int64_t>(text_bytes);
    open_ = open_ || text_bytes > 0;
    if (open_ && ends_document) ++row.documents;
    if (ends_document) open_ = false;
  }

  std::string text() const {
    Table table{.title = "", .head = {"taken as", "files", "documents", "bytes of text", "first"}, .rows = {}};
    for (const TextFormat format : {TextFormat::text, TextFormat::jsonl}) {
      const auto is_it = [&](const InputFile& file) { return file.format == format; };
      const auto& files = corpus_.files();
      const auto first = std::find_if(files.begin(), files.end(), is_it);
      if (first == files.end()) continue;
      const Row& row = format == TextFormat::text ? text_ : jsonl_;
      table.rows.push_back({format == TextFormat::text ? "plain text" : "JSON lines",
                            grouped(std::count_if(files.begin(), files.end(), is_it)), grouped(row.documents),
                            grouped(row.bytes), first->path});
    }
    std::map<std::string, std::pair<std::int64_t, std::string>> reasons;  // how often, and the first
    for (const LeftOut& left : corpus_.left_out()) {
      auto& [n, first] = reasons[left.why];
      if (n++ == 0) first = left.path;
    }
    for (const auto& [why, what] : reasons)
      table.rows.push_back({"left out: " + why, grouped(what.first), "", "", what.second});
    return to_text(table);
  }

 private:
  struct Row {
    std::int64_t documents = 0, bytes = 0;
  };
  Row& row_of(TextFormat format) { return format == TextFormat::text ? text_ : jsonl_; }

  const Corpus& corpus_;
  Row text_, jsonl_;
  bool open_ = false;  // some text of the document was counted
};

}  // namespace nsa::data
