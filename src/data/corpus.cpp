#include "data/corpus.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "core/check.h"
#include "data/byte_stream.h"
#include "data/inputs.h"
#include "data/utf8.h"

namespace nsa::data {
namespace {

constexpr std::size_t kPieceBytes = 1 << 18;                  // plain text is handed out in pieces of about this
constexpr std::size_t kLongestPiece = std::size_t{64} << 20;  // text without any place to cut is cut here all the same
constexpr std::size_t kNoLimit = static_cast<std::size_t>(-1);

}  // namespace

/// Lines of one file.
struct Corpus::Reader {
  explicit Reader(const std::string& path) : bytes(path), buffer(kPieceBytes) {}
  ByteStream bytes;
  bool is_json = false;
  std::vector<char> buffer;
  std::size_t begin = 0, end = 0;  // unread part of buffer
  std::string line;         // the last one read, with its line end; of a plain-text line beyond the limit, a part
  std::int64_t number = 0;  // of that line, from 1
  bool starts = true, complete = true;  // is `line` the beginning of its line, and its end?

  std::string_view head();
  bool next(std::size_t limit);
};

/// Before the first line: what the file begins with, as far as the buffer holds it.
std::string_view Corpus::Reader::head() {
  for (std::size_t n = 1; n > 0 && end < kHeadBytes; end += n) n = bytes.read(buffer.data() + end, kHeadBytes - end);
  return {buffer.data(), end};
}

bool Corpus::Reader::next(std::size_t limit) {
  starts = complete;
  if (starts) ++number;
  line.clear();
  complete = false;
  while (!complete && line.size() < limit) {
    if (begin == end) {
      begin = 0;
      end = bytes.read(buffer.data(), buffer.size());
      if (end == 0) break;
    }
    const char* from = buffer.data() + begin;
    const std::size_t available = std::min(end - begin, limit - line.size());
    const void* newline = std::memchr(from, '\n', available);
    const std::size_t count =
        newline ? static_cast<std::size_t>(static_cast<const char*>(newline) - from) + 1 : available;
    line.append(from, count);
    begin += count;
    complete = newline != nullptr;
  }
  if (!complete && line.size() >= limit) {  // no character is torn: give its first bytes back (they are still in the
                                            // buffer, or go back into it)
    const std::size_t tail = utf8_unfinished_tail(line);
    if (tail > begin) {
      std::vector<char> longer(line.end() - static_cast<std::ptrdiff_t>(tail), line.end());
      longer.insert(longer.end(), buffer.begin() + static_cast<std::ptrdiff_t>(begin),
                    buffer.begin() + static_cast<std::ptrdiff_t>(end));
      end = longer.size();
      begin = 0;
      longer.resize(std::max(longer.size(), buffer.size()));
      buffer.swap(longer);
    } else {
      begin -= tail;
    }
    line.resize(line.size() - tail);
  }
  return !line.empty();
}

Corpus::Corpus(const std::vector<std::string>& inputs, CorpusOptions options)
    : options_(std::move(options)), inputs_(find_inputs(inputs, options_)) {}

Corpus::~Corpus() = default;
Corpus::Corpus(Corpus&&) noexcept = default;

std::int64_t Corpus::bytes_read() const { return finished_bytes_ + (reader_ ? reader_->bytes.position() : 0); }

void Corpus::bad(std::size_t file, std::int64_t line, const std::string& why) {
  const std::string sentence = fmt::format("{}:{}: {}", files()[file].path, line, why);
  NSA_CHECK(options_.on_bad == OnBad::skip, "{} (--on-error skip leaves such lines out and counts them)", sentence);
  if (skipped_++ == 0) first_skipped_ = sentence;
}

bool Corpus::open_next() {
  if (file_ == files().size()) return false;
  InputFile& file = inputs_.files[file_];
  reader_ = std::make_unique<Reader>(file.path);
  if (file.format == TextFormat::automatic) {
    const std::string_view head = reader_->head();
    file.format = format_of(file.path, content_of(head, head.size() < kHeadBytes));
  }
  reader_->is_json = file.format == TextFormat::jsonl;
  document_.clear();
  document_line_ = 1;
  try_cut_at_ = kPieceBytes;
  document_open_ = false;
  return true;
}

bool Corpus::next(CorpusPiece& piece) {
  while (reader_ || open_next()) {
    piece.file = file_;
    if (reader_->is_json ? next_json(piece) : next_text(piece)) return true;
    finished_bytes_ += reader_->bytes.position();
    reader_.reset();
    ++file_;
  }
  return false;
}

bool Corpus::next_json(CorpusPiece& piece) {
  while (reader_->next(kNoLimit)) {
    std::string& line = reader_->line;
    if (reader_->number == 1 && line.starts_with("\xEF\xBB\xBF")) line.erase(0, 3);  // a byte order mark is not JSON
    if (line.find_first_not_of(" \t\r\n") == std::string::npos) continue;
    piece.is_json = piece.ends_document = true;
    piece.line = reader_->number;
    piece.data.swap(line);
    return true;
  }
  return false;
}

/// Is the line just read a boundary between documents?
bool Corpus::is_separator() const {
  if (!reader_->starts || (options_.separator.empty() && !options_.blank_lines)) return false;
  std::string_view line = reader_->line;
  if (line.ends_with('\n')) line.remove_suffix(1);
  if (line.ends_with('\r')) line.remove_suffix(1);
  return options_.blank_lines ? line.find_first_not_of(" \t") == std::string_view::npos : line == options_.separator;
}

/// Hands out the first `size` bytes of what was read.
void Corpus::take_piece(CorpusPiece& piece, std::size_t size, bool ends_document) {
  piece.is_json = false;
  piece.ends_document = ends_document;
  piece.line = document_line_;
  piece.data.assign(document_, 0, size);
  document_.erase(0, size);
  document_line_ += std::count(piece.data.begin(), piece.data.end(), '\n');
  try_cut_at_ = std::max(kPieceBytes, 2 * document_.size());
  document_open_ = !ends_document;
}

bool Corpus::next_text(CorpusPiece& piece) {
  while (reader_->next(kPieceBytes)) {
    const std::string& line = reader_->line;
    if (is_separator()) {
      const bool some = !document_.empty() || document_open_;
      if (some) take_piece(piece, document_.size(), true);
      document_line_ = reader_->number + 1;
      if (some) return true;
      continue;
    }
    const std::size_t valid = utf8_valid_prefix(line);
    if (valid < line.size()) {
      bad(file_, reader_->number,
          fmt::format("invalid UTF-8 (byte 0x{:02X} at byte {} of the {})", static_cast<unsigned char>(line[valid]),
                      valid + 1, reader_->starts ? "line" : "rest of a long line"));
      continue;
    }
    if (document_.empty()) document_line_ = reader_->number;
    document_ += line;
    if (document_.size() < try_cut_at_) continue;
    std::size_t size = options_.cut ? options_.cut(document_, document_.size() - 1) : document_.size();
    if (size == 0 && document_.size() >= kLongestPiece) size = document_.size();
    if (size > 0) {
      take_piece(piece, size, false);
      return true;
    }
    try_cut_at_ = 2 * document_.size();
  }
  if (document_.empty() && !document_open_) return false;
  take_piece(piece, document_.size(), true);
  return true;
}

}  // namespace nsa::data
