// What files are taken for, whatever they are called.
#include <algorithm>
#include <filesystem>

#include "data/corpus.h"
#include "tools.h"

using namespace nsa;
using namespace nsa::data;

namespace {

const std::string kLines = "{\"text\": \"one\", \"id\": 1}\n{\"text\": \"two\"}\n";

/// "jsonl NAME", "text NAME", "left NAME: why" in their order.
std::vector<std::string> taken(const TempDir& folder, const std::vector<std::string>& inputs,
                               const CorpusOptions& options = {}) {
  const Inputs found = find_inputs(inputs, options);
  std::vector<std::string> all;
  const auto name = [&](const std::string& path) { return path.substr((folder / "").size()); };
  for (const InputFile& file : found.files)
    all.push_back((file.format == TextFormat::jsonl  ? "jsonl "
                   : file.format == TextFormat::text ? "text "
                                                     : "pipe ") +
                  name(file.path));
  for (const LeftOut& left : found.left_out) all.push_back("left " + name(left.path) + ": " + left.why);
  return all;
}

using Names = std::vector<std::string>;

std::string refused(const std::string& path, const std::string& content, const CorpusOptions& options = {}) {
  write_text(path, content);
  const std::string message = error_of([&] { find_inputs({path}, options); });
  REQUIRE(contains(message, path));
  return message;
}

}  // namespace

TEST_CASE("JSON lines are JSON lines under any name", "[inputs]") {
  const TempDir folder;
  for (const char* name : {"a.jsonl", "a.ndjson", "a.json", "a.txt", "a", "a.jsonl.v2", "a.gzip"}) {
    CAPTURE(name);
    for (const std::string& content : std::vector<std::string>{
             kLines, "\n  \n" + kLines, "\xEF\xBB\xBF" + kLines, std::string("{\"text\": \"no end\"}"),
             "{\"text\": \"" + std::string(300'000, 'x') + "\"}\n",
             "{\"title\": \"\\ud800\", \"n\": NaN, \"text\": \"a\"}\n"}) {
      write_text(folder / name, content);
      CHECK(taken(folder, {folder / name}) == Names{std::string("jsonl ") + name});
    }
  }
  for (const char* content :
       {"words\n", "{ braces } and {\"quotes\"}\nas in code\n", "[a list]\n", "{\n", "{\"a\" is a set}\n",
        "if (x) {\n  y;\n}\n", "[1] A reference\n[2] another\n", "\"a\": 1\n"}) {
    CAPTURE(content);
    write_text(folder / "b.txt", content);
    CHECK(taken(folder, {folder / "b.txt"}) == Names{"text b.txt"});
    CorpusOptions as_lines;
    as_lines.format = TextFormat::jsonl;
    CHECK(taken(folder, {folder / "b.txt"}, as_lines) == Names{"jsonl b.txt"});
  }
  write_text(folder / "c.jsonl", "not JSON at all\n");  // its name says what it should have been: each line is an error
  CHECK(taken(folder, {folder / "c.jsonl"}) == Names{"jsonl c.jsonl"});
  CorpusOptions as_text;
  as_text.format = TextFormat::text;
  write_text(folder / "d.jsonl", kLines);
  CHECK(taken(folder, {folder / "d.jsonl"}, as_text) == Names{"text d.jsonl"});
}

TEST_CASE("a named file that is not text is refused with what it is", "[inputs]") {
  const TempDir folder;
  const std::string path = folder / "x.txt";
  const auto padded = [](std::string head) { return head + std::string(300, '\1'); };
  CHECK(contains(refused(path, padded("\x89PNG\r\n\x1A\n")), "a PNG image"));
  CHECK(contains(refused(path, padded("\xFF\xD8\xFF\xE0")), "a JPEG image"));
  CHECK(contains(refused(path, padded("%PDF-1.7\n")), "a PDF document"));
  CHECK(contains(refused(path, padded("PK\x03\x04")), "a zip archive"));
  CHECK(contains(refused(path, padded(std::string("\xFD\x37zXZ\0", 6))), "xz-compressed"));
  CHECK(contains(refused(path, padded("BZh91AY&SY")), "bzip2-compressed"));
  CHECK(contains(refused(path, padded("PAR1\x15")), "a Parquet table"));
  CHECK(contains(refused(path, padded(std::string("\x20\0\0\0\0\0\0\0{\"", 10))), "a safetensors file"));
  CHECK(contains(refused(path, padded(std::string("\x88\xD8\x34\x01", 4))), "a token shard"));
  CHECK(contains(refused(path, std::string(257, 'n') + "ustar"), "a tar archive"));
  CHECK(contains(refused(path, std::string("\xFF\xFEw\0o\0r\0d\0", 10)), "UTF-16"));
  std::string random(5000, '\0');
  for (std::size_t i = 0; i < random.size(); ++i) random[i] = static_cast<char>((i * i * 2654435761u) >> 11);
  CHECK(contains(refused(path, random), "binary data"));
  CHECK(contains(refused(path, std::string("\1\0\2\0\3\0\4\0", 8)), "binary data"));
  CHECK(contains(refused(path, "version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 2\n"), "git lfs pull"));

  for (const auto& [content, what] : std::vector<std::pair<std::string, std::string>>{
           {"[{\"text\": \"a\"},\n {\"text\": \"b\"}]\n", "a JSON array"},
           {"[\n  {\n    \"text\": \"" + std::string(100'000, 'x') + "\"\n  }\n]", "a JSON array"},
           {"{\n  \"text\": \"a\"\n}\n", "JSON over several lines"},
           {"{\n  \"text\": \"a\"\n}\n{\n  \"text\": \"b\"\n}\n", "JSON over several lines"},
           {"[\"a\", 1]\n[\"b\", 2]\n", "arrays, not objects"},
           {"d41d8cd98f00b204e9800998ecf8427e  a.txt\nd41d8cd98f00b204e9800998ecf8427e *b.txt\n", "checksums"},
           {"SHA256 (a.txt) = e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\n", "checksums"}}) {
    CAPTURE(content);
    CHECK(contains(refused(path, content), what));
    CHECK(contains(refused(path, content), "--format text"));
    CorpusOptions as_text;
    as_text.format = TextFormat::text;
    CHECK(taken(folder, {path}, as_text) == Names{"text x.txt"});
  }
}

TEST_CASE("text in another encoding is not called binary: its line is named when it is read", "[inputs]") {
  const TempDir folder;
  std::string latin;
  for (int i = 0; i < 200; ++i) latin += "caf\xE9 cr\xE8me\n";
  write_text(folder / "latin.txt", latin);
  CHECK(taken(folder, {folder / "latin.txt"}) == Names{"text latin.txt"});
}

TEST_CASE("in a folder, what is not text is left out by name", "[inputs]") {
  const TempDir folder;
  std::filesystem::create_directories(folder / "f/.cache");
  std::filesystem::create_directories(folder / "f/sub");
  write_text(folder / "f/a.txt", "words");
  write_text(folder / "f/sub/b.json", kLines);
  write_text(folder / "f/README.md", "# About");
  write_text(folder / "f/LICENSE", "You may");
  write_text(folder / "f/SHA256SUMS", "anything");
  write_text(folder / "f/sums", "d41d8cd98f00b204e9800998ecf8427e  a.txt\n");
  write_text(folder / "f/.hidden.txt", "hidden");
  write_text(folder / "f/.cache/c.txt", "hidden");
  write_text(folder / "f/pic.txt", "\x89PNG\r\n\x1A\n" + std::string(50, '\1'));
  write_text(folder / "f/info.json", "{\"description\": \"a set\", \"n\": 3}\n");
  write_text(folder / "f/state.json", "{\n  \"n\": 3,\n  \"m\": \"x\"\n}\n");
  write_text(folder / "f/empty.txt", "");
  std::filesystem::create_symlink("nowhere", folder / "f/dangling");
  Names expected{"text f/a.txt",
                 "jsonl f/sub/b.json",
                 "left f/README.md: a read-me",
                 "left f/LICENSE: a note beside the data",
                 "left f/SHA256SUMS: checksums",
                 "left f/sums: checksums",
                 "left f/.hidden.txt: hidden",
                 "left f/.cache: hidden",
                 "left f/pic.txt: a PNG image",
                 "left f/info.json: a JSON object without \"text\"",
                 "left f/state.json: JSON over several lines, not JSON lines (jq -c . makes one object a line of it)",
                 "left f/empty.txt: empty",
                 "left f/dangling: a link that leads nowhere (No such file or directory)"};
  Names got = taken(folder, {folder / "f"});
  std::sort(expected.begin(), expected.end());
  std::sort(got.begin(), got.end());
  CHECK(got == expected);
  CHECK(taken(folder, {folder / "f/README.md", folder / "f/.hidden.txt"}) ==
        Names{"text f/README.md", "text f/.hidden.txt"});  // named: that is what was asked for
  std::filesystem::create_directories(folder / "g");
  write_text(folder / "g/README.md", "# About");
  CHECK(contains(error_of([&] { find_inputs({folder / "g"}, {}); }),
                 "no text in this folder: 1 left out, the first is "));
  write_text(folder / "f/z.txt", "version https://git-lfs.github.com/spec/v1\n");
  CHECK(contains(error_of([&] { find_inputs({folder / "f"}, {}); }), "git lfs pull"));  // text that is missing
}

TEST_CASE("a file is taken once, however often it is named or linked", "[inputs]") {
  const TempDir folder;
  std::filesystem::create_directories(folder / "f/sub");
  write_text(folder / "f/a.txt", "a");
  write_text(folder / "f/sub/b.txt", "b");
  const Names all{"text f/a.txt", "text f/sub/b.txt"};
  const auto files = [&](const std::vector<std::string>& inputs) {
    Names names = taken(folder, inputs);
    std::erase_if(names, [](const std::string& name) { return name.starts_with("left"); });
    return names;
  };
  CHECK(taken(folder, {folder / "f"}) == all);
  CHECK(files({folder / "f", folder / "f/a.txt"}) == all);
  CHECK(files({folder / "f/a.txt", folder / "f"}) == all);
  CHECK(files({folder / "f", folder / "f/sub", folder / "f/../f"}) == all);
  CHECK(taken(folder, {folder / "f", folder / "f/sub/b.txt"}).back() == "left f/sub/b.txt: given twice");
  std::filesystem::create_symlink("a.txt", folder / "f/link.txt");
  std::filesystem::create_hard_link(folder / "f/a.txt", folder / "f/same.txt");
  std::filesystem::create_symlink("..", folder / "f/sub/up");  // a circle
  CHECK(files({folder / "f"}) == all);
  std::filesystem::create_directories(folder / "store");
  write_text(folder / "store/c.txt", "c");
  std::filesystem::create_symlink("../store", folder / "f/far");  // a link to a folder is followed
  CHECK(files({folder / "f"}) == Names{"text f/a.txt", "text f/far/c.txt", "text f/sub/b.txt"});
}
