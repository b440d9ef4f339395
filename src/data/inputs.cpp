#include "data/inputs.h"

#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <set>
#include <string_view>
#include <utility>

#include "core/check.h"
#include "data/byte_stream.h"
#include "data/json_line.h"
#include "data/shard.h"

namespace nsa::data {
namespace {

namespace fs = std::filesystem;
using Kind = Content::Kind;

constexpr const char* kTwice = "given twice";

std::string lower(std::string text) {
  for (char& c : text) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return text;
}

/// What stands beside data without being data, by name: "" when it may be data.
std::string companion(const std::string& path) {
  const fs::path name = lower(fs::path(path).filename().string());
  const std::string stem = name.stem().string(), extension = name.extension().string();
  if (stem.starts_with(".")) return "hidden";
  if (stem == "readme") return "a read-me";
  for (const char* word : {"license", "licence", "copying", "notice", "citation", "_success"}) {
    if (stem == word) return "a note beside the data";
  }
  for (const char* word : {".md5", ".sha1", ".sha256", ".sha512", ".sfv", ".crc32"}) {
    if (extension == word) return "checksums";
  }
  for (const char* word : {"md5sum", "sha1sum", "sha256sum", "sha512sum", "checksum"}) {
    if (stem.starts_with(word)) return "checksums";
  }
  return "";
}

bool is_named_json(const std::string& path) {
  fs::path name = lower(path);
  if (name.extension() == ".gz" || name.extension() == ".zst") name = name.stem();
  const std::string extension = name.extension().string();
  return extension == ".jsonl" || extension == ".ndjson" || extension == ".json";
}

class Finder {
 public:
  explicit Finder(const CorpusOptions& options) : options_(options) {}
  void named(const std::string& path);
  Inputs take() { return std::move(result_); }

 private:
  void folder(const std::string& path, std::vector<std::string>& files);
  void file(const std::string& path, bool in_folder);
  void leave_out(const std::string& path, std::string why) { result_.left_out.push_back({path, std::move(why)}); }
  bool is_new(const struct stat& status) { return seen_.insert({status.st_dev, status.st_ino}).second; }
  std::string reason_to_leave(const std::string& path, const Content& content, std::string_view head, bool whole) const;

  const CorpusOptions& options_;
  Inputs result_;
  std::set<std::pair<dev_t, ino_t>> seen_;  // a name may be a link
};

/// Every file below, links followed; a folder that is its own grandchild is met once.
void Finder::folder(const std::string& path, std::vector<std::string>& files) {
  std::error_code error;
  for (fs::directory_iterator entry(path, error), end; !error && entry != end; entry.increment(error)) {
    const std::string name = entry->path().string();
    struct stat status {};
    if (::stat(name.c_str(), &status) != 0) {
      leave_out(name, fmt::format("a link that leads nowhere ({})", std::strerror(errno)));
    } else if (!S_ISDIR(status.st_mode)) {
      files.push_back(name);
    } else if (entry->path().filename().string().starts_with(".")) {
      leave_out(name, "hidden");
    } else if (is_new(status)) {
      folder(name, files);
    }
  }
  NSA_CHECK(!error, "{}: the folder cannot be read: {}", path, error.message());
}

void Finder::named(const std::string& path) {
  struct stat status {};
  if (::stat(path.c_str(), &status) != 0 || !S_ISDIR(status.st_mode)) return file(path, false);
  if (!is_new(status)) return leave_out(path, kTwice);
  std::vector<std::string> files;
  const std::size_t taken = result_.files.size(), left = result_.left_out.size();
  folder(path, files);
  std::sort(files.begin(), files.end());
  for (const std::string& name : files) file(name, true);
  if (result_.files.size() > taken) return;
  const std::size_t more = result_.left_out.size() - left;
  NSA_CHECK(more > 0, "{}: no file in this folder", path);
  const auto twice = [](const LeftOut& one) { return one.why == kTwice; };
  if (std::any_of(result_.left_out.begin() + static_cast<std::ptrdiff_t>(left), result_.left_out.end(), twice)) return;
  fail("{}: no text in this folder: {} left out, the first is {} ({})", path, more, result_.left_out[left].path,
       result_.left_out[left].why);
}

/// "" for a file of a folder that is text as the options have it.
std::string Finder::reason_to_leave(const std::string& path, const Content& content, std::string_view head,
                                    bool whole) const {
  if (content.kind == Kind::pointer) fail("{}: {}", path, content.what);  // left out, it would be missed by nobody
  const bool as_text = options_.format == TextFormat::text && content.kind == Kind::json_document;
  if (!content.what.empty() && !as_text) return content.what;
  // dataset_info.json and its like. In a file of more lines a missing field is an error.
  const bool single = content.kind == Kind::json_lines && whole && head.find('\n') >= head.find_last_not_of(" \t\r\n");
  std::string text, why;
  if (options_.format != TextFormat::automatic || !single || text_of_line(head, options_.text_field, text, why))
    return "";
  return fmt::format("a JSON object without \"{}\"", options_.text_field);
}

void Finder::file(const std::string& path, bool in_folder) {
  struct stat status {};
  NSA_CHECK(::stat(path.c_str(), &status) == 0, "{}: cannot be opened: {}", path, std::strerror(errno));
  const bool regular = S_ISREG(status.st_mode);
  if (in_folder) {
    const std::string why = regular ? companion(path) : "not a regular file";
    if (!why.empty()) return leave_out(path, why);
  }
  if (!is_new(status)) return leave_out(path, kTwice);
  if (!regular) {  // its bytes can be read only once
    result_.files.push_back({path, options_.format});
    return;
  }
  std::string head(kHeadBytes, '\0');
  std::size_t size = 0;
  ByteStream stream(path);
  for (std::size_t n = 1; n > 0 && size < kHeadBytes; size += n) n = stream.read(head.data() + size, kHeadBytes - size);
  head.resize(size);
  const bool whole = size < kHeadBytes;
  const Content content = content_of(head, whole);
  if (content.kind == Kind::empty) return leave_out(path, "empty");
  if (in_folder) {
    std::string why = reason_to_leave(path, content, head, whole);
    if (!why.empty()) return leave_out(path, std::move(why));
  }
  const TextFormat format = options_.format == TextFormat::automatic ? format_of(path, content) : options_.format;
  result_.files.push_back({path, format});
  result_.bytes += status.st_size;
}

}  // namespace

TextFormat format_of(const std::string& path, const Content& content) {
  switch (content.kind) {
    case Kind::json_lines: return TextFormat::jsonl;
    case Kind::empty:
    case Kind::text: return is_named_json(path) ? TextFormat::jsonl : TextFormat::text;
    case Kind::json_document:
    case Kind::checksums: fail("{}: this is {}; --format text takes it as plain text", path, content.what);
    case Kind::pointer:
    case Kind::binary: break;
  }
  fail("{}: this is {}, not text", path, content.what);
}

Inputs find_inputs(const std::vector<std::string>& inputs, const CorpusOptions& options) {
  NSA_CHECK(!inputs.empty(), "no input given: name files, folders or globs");
  Finder finder(options);
  for (const std::string& input : expand_globs(inputs)) finder.named(input);
  return finder.take();
}

}  // namespace nsa::data
