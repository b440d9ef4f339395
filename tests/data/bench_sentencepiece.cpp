// bench_sentencepiece MODEL TEXT...: what the tokenizer library does alone, for scripts/bench_io to compare
// build/tokenize with. Holds the texts in memory, cut into lines as the library wants them, encodes each line in one
// thread and prints MB/s as a plain number. Line ends are not encoded but count, as they do in what build/tokenize
// reports.
#include <sentencepiece_processor.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <string>
#include <string_view>
#include <vector>

#include "core/check.h"
#include "core/program.h"
#include "data/corpus.h"
#include "data/json_line.h"

namespace {

std::vector<std::string> read_documents(const std::vector<std::string>& inputs) {
  nsa::data::Corpus corpus(inputs, {});
  std::vector<std::string> documents;
  bool open = false;  // a plain-text document comes in pieces
  for (nsa::data::CorpusPiece piece; corpus.next(piece);) {
    std::string text, why;
    if (piece.is_json && !nsa::data::text_of_line(piece.data, "text", text, why))
      corpus.bad(piece.file, piece.line, why);
    if (!open) documents.emplace_back();
    documents.back() += piece.is_json ? text : piece.data;
    open = !piece.ends_document;
  }
  return documents;
}

std::vector<std::string_view> lines_of(const std::vector<std::string>& documents) {
  std::vector<std::string_view> lines;
  for (std::string_view rest : documents) {
    while (!rest.empty()) {
      const std::string_view line = rest.substr(0, rest.find('\n'));
      if (!line.empty()) lines.push_back(line);
      rest.remove_prefix(std::min(rest.size(), line.size() + 1));
    }
  }
  return lines;
}

nsa::Exit bench(const std::string& model, const std::vector<std::string>& inputs) {
  sentencepiece::SentencePieceProcessor processor;
  NSA_CHECK(processor.Load(model).ok(), "{} is not a sentencepiece model", model);
  const std::vector<std::string> documents = read_documents(inputs);
  const std::vector<std::string_view> lines = lines_of(documents);
  double bytes = 0;
  for (const std::string& document : documents) bytes += static_cast<double>(document.size());
  NSA_CHECK(!lines.empty(), "no text in the input");

  std::vector<int> ids;
  const auto start = std::chrono::steady_clock::now();
  for (std::string_view line : lines)
    NSA_CHECK(processor.Encode(line, &ids).ok(), "the library cannot encode a line of {} bytes", line.size());
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  std::printf("%.3f\n", bytes / 1e6 / seconds);
  return nsa::Exit::ok;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3) {
    std::fprintf(stderr, "usage: bench_sentencepiece MODEL TEXT...\n");
    return static_cast<int>(nsa::Exit::usage);
  }
  return nsa::run_program([&] { return bench(argv[1], {argv + 2, argv + argc}); });
}
