// Text for tokenizers: plain text and JSONL with "text", both also .gz / .zst (recognised by content), from files,
// folders and globs. Streams: memory is bounded by one piece of plain text (64 MiB at most, 256 KiB usually) or one
// JSONL line, whatever the size of the corpus.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace nsa::data {

enum class TextFormat {
  automatic,
  text,
  jsonl
};  ///< automatic: .jsonl, .ndjson (before .gz, .zst) are JSONL, everything else is plain text
enum class OnBad { fail, skip };  ///< what to do with a line that is not UTF-8 or not JSON with a "text" string

struct CorpusOptions {
  TextFormat format = TextFormat::automatic;
  /// Plain text: a line that is exactly this (without its line end) separates documents; blank_lines: every run of
  /// empty lines does. Neither: one file is one document.
  std::string separator;
  bool blank_lines = false;
  OnBad on_bad = OnBad::fail;
  /// Where a piece of plain text may end: Tokenizer::cut. Empty: anywhere between characters.
  std::function<std::size_t(std::string_view text, std::size_t at)> cut;
};

/// A JSONL line as it stands (parse_line makes a document of it, in another thread if need be), or a piece of a
/// plain-text document, valid UTF-8.
struct CorpusPiece {
  std::string data;
  bool is_json = false;
  bool ends_document = true;
  std::size_t file = 0;   ///< index into Corpus::files()
  std::int64_t line = 0;  ///< from 1: where it begins
};

/// The "text" of a JSONL line. False, with the reason in `why`, when the line is not JSON, not UTF-8, or has no string
/// "text".
bool parse_line(std::string_view line, std::string& text, std::string& why);

class Corpus {
 public:
  /// `inputs`: files, folders (every file below, sorted, hidden ones left out) and globs. Throws naming an input that
  /// does not exist or holds nothing.
  Corpus(const std::vector<std::string>& inputs, CorpusOptions options);
  ~Corpus();

  /// The next piece in the order of the inputs. False at the end. Throws naming file and line.
  bool next(CorpusPiece& piece);

  /// Reports a bad line: throws "FILE:LINE: why" or counts it, as the options say. next() does so itself for plain
  /// text; callers of parse_line do for JSONL.
  void bad(std::size_t file, std::int64_t line, const std::string& why);

  const std::vector<std::string>& files() const { return files_; }
  std::int64_t total_bytes() const { return total_bytes_; }            ///< of all files as they lie on the disk
  std::int64_t bytes_read() const;                                     ///< of those, for progress
  std::int64_t skipped() const { return skipped_; }                    ///< bad lines left out
  const std::string& first_skipped() const { return first_skipped_; }  ///< "FILE:LINE: why"

 private:
  struct Reader;
  bool read_line(std::size_t limit);
  bool next_json(CorpusPiece& piece);
  bool next_text(CorpusPiece& piece);
  void take_piece(CorpusPiece& piece, std::size_t size, bool ends_document);
  bool is_separator() const;
  bool open_next();

  CorpusOptions options_;
  std::vector<std::string> files_;
  std::int64_t total_bytes_ = 0, finished_bytes_ = 0, skipped_ = 0;
  std::string first_skipped_;
  std::size_t file_ = 0;            // being read
  std::unique_ptr<Reader> reader_;  // null between files
  std::string document_;            // plain text read, not yet handed out
  std::int64_t document_line_ = 1;  // where it begins
  std::size_t try_cut_at_ = 0;      // size of document_ from which a cut is looked for
  bool document_open_ = false;      // a piece of this document was handed out
};

}  // namespace nsa::data
