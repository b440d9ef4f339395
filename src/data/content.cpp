#include "data/content.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <cstdint>
#include <cstring>

#include "data/json_line.h"
#include "data/shard.h"
#include "data/utf8.h"

namespace nsa::data {
namespace {

struct Mark {
  std::size_t at;
  std::string_view bytes;
  const char* what;
};

using namespace std::string_view_literals;

constexpr std::array kMarks{
    Mark{0, "\x1f\x8b"sv, "gzip-compressed data"},
    Mark{0, "\x28\xb5\x2f\xfd"sv, "zstd-compressed data"},
    Mark{0, "\xFD\x37zXZ\0"sv, "xz-compressed data"},
    Mark{0, "\x04\x22\x4D\x18"sv, "lz4-compressed data"},
    Mark{4, "1AY&SY"sv, "bzip2-compressed data"},
    Mark{0, "7z\xBC\xAF\x27\x1C"sv, "a 7z archive"},
    Mark{0, "Rar!\x1A\x07"sv, "a rar archive"},
    Mark{0, "PK\x03\x04"sv, "a zip archive"},
    Mark{257, "ustar"sv, "a tar archive"},
    Mark{0, "\x89PNG\r\n"sv, "a PNG image"},
    Mark{0, "\xFF\xD8\xFF"sv, "a JPEG image"},
    Mark{0, "GIF87a"sv, "a GIF image"},
    Mark{0, "GIF89a"sv, "a GIF image"},
    Mark{0, "II*\0"sv, "a TIFF image"},
    Mark{0, "MM\0*"sv, "a TIFF image"},
    Mark{8, "WEBPVP8"sv, "a WebP image"},
    Mark{8, "WAVEfmt"sv, "a sound"},
    Mark{0, "OggS\0"sv, "a sound"},
    Mark{0, "fLaC\0"sv, "a sound"},
    Mark{0, "ID3\x03\0"sv, "a sound"},
    Mark{0, "ID3\x04\0"sv, "a sound"},
    Mark{4, "ftypisom"sv, "a film"},
    Mark{4, "ftypmp4"sv, "a film"},
    Mark{0, "%PDF-"sv, "a PDF document"},
    Mark{0, "\xD0\xCF\x11\xE0\xA1\xB1\x1A\xE1"sv, "an old Office document"},
    Mark{0, "PAR1\x15"sv, "a Parquet table"},
    Mark{0, "ARROW1\0"sv, "an Arrow table"},
    Mark{0, "ORC\x08"sv, "an ORC table"},
    Mark{0, "Obj\x01"sv, "an Avro table"},
    Mark{0, "\x93NUMPY"sv, "a NumPy array"},
    Mark{0, "\x89HDF\r\n"sv, "an HDF5 file"},
    Mark{0, "\x80\x02}"sv, "a Python pickle"},
    Mark{0, "\x80\x04\x95"sv, "a Python pickle"},
    Mark{0, "\x80\x05\x95"sv, "a Python pickle"},
    Mark{0, "GGUF"sv, "a GGUF model"},
    Mark{0, "SQLite format 3\0"sv, "an SQLite database"},
    Mark{0,
         "\x7F"
         "ELF"sv,
         "a program"},
    Mark{0, "BIN.TOK\n"sv, "a token shard"},
    Mark{0, "\xFF\xFE"sv, "UTF-16 text (iconv -f UTF-16 -t UTF-8 makes UTF-8 of it)"},
    Mark{0, "\xFE\xFF"sv, "UTF-16 text (iconv -f UTF-16 -t UTF-8 makes UTF-8 of it)"},
};

bool is_safetensors(std::string_view head) {  // int64 size of the JSON that follows
  std::uint64_t size = 0;
  if (head.size() < 10) return false;
  std::memcpy(&size, head.data(), sizeof size);
  return size >= 2 && size < 100'000'000 && head.substr(8, 2) == "{\"";
}

bool is_llmc_shard(std::string_view head) {
  std::int32_t magic = 0;
  if (head.size() >= sizeof magic) std::memcpy(&magic, head.data(), sizeof magic);
  return magic == kMagicU16 || magic == kMagicU32;
}

bool is_control(unsigned char c) { return (c < 0x20 && (c < '\b' || c > '\r') && c != 0x1B) || c == 0x7F; }

/// Random bytes hold a tenth of control characters and are not UTF-8; integers are mostly zero bytes. Text in another
/// encoding is neither.
bool is_binary(std::string_view head) {
  const auto controls =
      static_cast<std::size_t>(std::count_if(head.begin(), head.end(), [](unsigned char c) { return is_control(c); }));
  if (controls * 10 > head.size() * 3) return true;
  return controls * 50 > head.size() && utf8_valid_prefix(head) + 3 < head.size();
}

/// Lines "d41d8cd98f00b204e9800998ecf8427e  name", as md5sum and its like write, or only the number.
bool is_checksum(std::string_view line) {
  const auto hex = static_cast<std::size_t>(
      std::find_if(line.begin(), line.end(), [](unsigned char c) { return !std::isxdigit(c); }) - line.begin());
  constexpr std::array<std::size_t, 6> kSizes{32, 40, 56, 64, 96, 128};
  if (std::find(kSizes.begin(), kSizes.end(), hex) != kSizes.end() && (hex == line.size() || line[hex] == ' '))
    return true;
  const bool bsd = line.starts_with("MD5 (") || (line.starts_with("SHA") && line.find(" (") < 12);
  return bsd && line.find(") = ") != std::string_view::npos;
}

std::string_view without_blanks(std::string_view line) {
  const std::size_t begin = line.find_first_not_of(" \t\r\n");
  if (begin == std::string_view::npos) return {};
  return line.substr(begin, line.find_last_not_of(" \t\r\n") - begin + 1);
}

struct Lines {
  std::size_t all = 0, objects = 0, arrays = 0, checksums = 0;
};

/// Of the lines that are not blank. The last one may be cut off.
Lines look_at_lines(std::string_view head) {
  Lines lines;
  std::size_t size = 0;
  while (!head.empty()) {
    const std::size_t end = std::min(head.find('\n'), head.size());
    const bool cut = end == head.size();
    const std::string_view line = without_blanks(head.substr(0, end));
    head.remove_prefix(std::min(end + 1, head.size()));
    if (line.empty()) continue;
    ++lines.all;
    if (is_checksum(line)) ++lines.checksums;
    const JsonStart start = json_at(line, size);
    if (!(start == JsonStart::whole && size == line.size()) && !(start == JsonStart::partial && cut)) continue;
    ++(line[0] == '{' ? lines.objects : lines.arrays);
  }
  return lines;
}

/// Is it one JSON value, or one after the other, laid out over lines?
std::string json_document(std::string_view head, const Lines& lines) {
  std::size_t size = 0;
  const std::string_view text = without_blanks(head);
  const JsonStart start = json_at(text, size);
  if (start == JsonStart::none || text.substr(0, size).find('"') == std::string_view::npos) return "";
  const std::string_view rest = start == JsonStart::whole ? without_blanks(text.substr(size)) : std::string_view();
  if (text[0] == '[' && lines.all > 1 && lines.arrays == lines.all) return "JSON lines that are arrays, not objects";
  if (!rest.empty() && (text[0] == '[' || rest[0] != '{')) return "";
  return text[0] == '[' ? "a JSON array, not JSON lines (jq -c '.[]' makes one object a line of it)"
                        : "JSON over several lines, not JSON lines (jq -c . makes one object a line of it)";
}

}  // namespace

std::string known_format(std::string_view head) {
  for (const Mark& mark : kMarks) {
    if (head.size() > mark.at && head.substr(mark.at).starts_with(mark.bytes)) return mark.what;
  }
  if (is_llmc_shard(head)) return "a token shard";
  return is_safetensors(head) ? "a safetensors file" : "";
}

Content content_of(std::string_view head, bool whole) {
  using Kind = Content::Kind;
  if (head.empty()) return {Kind::empty, ""};
  if (std::string format = known_format(head); !format.empty()) return {Kind::binary, std::move(format)};
  if (is_binary(head)) return {Kind::binary, "binary data"};
  if (head.starts_with("version https://git-lfs.github.com/"))
    return {Kind::pointer, "a Git LFS pointer, not the file itself (git lfs pull fetches it)"};
  if (head.starts_with("\xEF\xBB\xBF")) head.remove_prefix(3);
  const Lines lines = look_at_lines(head);
  if (lines.objects > 0 && 2 * lines.objects >= lines.all) return {Kind::json_lines, ""};
  if (std::string document = json_document(head, lines); !document.empty())
    return {Kind::json_document, std::move(document)};
  if (whole && lines.all > 0 && lines.checksums == lines.all) return {Kind::checksums, "checksums"};
  return {Kind::text, ""};
}

}  // namespace nsa::data
