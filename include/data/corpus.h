// Text for tokenizers: plain text and JSONL with a text field, both also gzip or zstd, recognised by content, from
// files, folders and globs. Streams: memory is bounded by one piece of plain text (64 MiB at most, 256 KiB usually) or
// one JSONL line, whatever the size of the corpus.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace nsa::data {

enum class TextFormat { automatic, text, jsonl };  ///< automatic: by content (JSONL by its name as well)
enum class OnBad { fail, skip };  ///< what to do with a line that is not UTF-8 or not JSON with a text field

struct CorpusOptions {
  TextFormat format = TextFormat::automatic;
  std::string text_field = "text";  ///< of JSONL; "a.b": b in the object a
  /// Plain text: a line that is exactly this (without its line end) separates documents; blank_lines: every run of
  /// empty lines does. Neither: one file is one document.
  std::string separator;
  bool blank_lines = false;
  OnBad on_bad = OnBad::fail;
  /// Where a piece of plain text may end: Tokenizer::cut. Empty: anywhere between characters.
  std::function<std::size_t(std::string_view text, std::size_t at)> cut;
};

struct InputFile {
  std::string path;
  TextFormat format = TextFormat::automatic;  ///< automatic: a pipe, known when it is read
};

struct LeftOut {
  std::string path, why;  ///< "a PNG image"
};

struct Inputs {
  std::vector<InputFile> files;
  std::vector<LeftOut> left_out;
  std::int64_t bytes = 0;  ///< of the files as they lie on the disk
};

/// `inputs`: files, globs, and folders with every file below in the order of their names. Each file is taken once,
/// however often it is named or linked. In a folder, hidden files, read-mes, checksums and what is not text are left
/// out. Throws naming an input that does not exist, holds no text, or is a named file that is not text.
Inputs find_inputs(const std::vector<std::string>& inputs, const CorpusOptions& options);

/// A JSONL line as it stands (text_of_line makes a document of it, in another thread if need be), or a piece of a
/// plain-text document, valid UTF-8.
struct CorpusPiece {
  std::string data;
  bool is_json = false;
  bool ends_document = true;
  std::size_t file = 0;   ///< index into Corpus::files()
  std::int64_t line = 0;  ///< from 1: where it begins
};

class Corpus {
 public:
  /// Of find_inputs.
  Corpus(const std::vector<std::string>& inputs, CorpusOptions options);
  ~Corpus();
  Corpus(Corpus&&) noexcept;

  /// The next piece in the order of the inputs. False at the end. Throws naming file and line.
  bool next(CorpusPiece& piece);

  /// Reports a bad line: throws "FILE:LINE: why" or counts it, as the options say. next() does so itself for plain
  /// text; callers of text_of_line do for JSONL.
  void bad(std::size_t file, std::int64_t line, const std::string& why);

  const std::vector<InputFile>& files() const { return inputs_.files; }
  const std::vector<LeftOut>& left_out() const { return inputs_.left_out; }
  std::int64_t total_bytes() const { return inputs_.bytes; }           ///< of all files as they lie on the disk
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
  Inputs inputs_;
  std::int64_t finished_bytes_ = 0, skipped_ = 0;
  std::string first_skipped_;
  std::size_t file_ = 0;            // being read
  std::unique_ptr<Reader> reader_;  // null between files
  std::string document_;            // plain text read, not yet handed out
  std::int64_t document_line_ = 1;  // where it begins
  std::size_t try_cut_at_ = 0;      // size of document_ from which a cut is looked for
  bool document_open_ = false;      // a piece of this document was handed out
};

}  // namespace nsa::data
