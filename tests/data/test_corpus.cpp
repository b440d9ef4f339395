#include "data/corpus.h"
#include "data/json_line.h"

#include "tools.h"

using namespace nsa;
using namespace nsa::data;

namespace {

struct Read {
  std::vector<std::string> documents;
  std::vector<std::int64_t> lines;  // where the pieces begin
  std::size_t pieces = 0;
  std::int64_t skipped = 0;
  std::string first_skipped;
};

Read read_all(const std::vector<std::string>& inputs, const CorpusOptions& options = {}) {
  Corpus corpus(inputs, options);
  Read read;
  std::string document, text, why;
  bool open = false;
  for (CorpusPiece piece; corpus.next(piece);) {
    ++read.pieces;
    read.lines.push_back(piece.line);
    if (piece.is_json && !text_of_line(piece.data, options.text_field, text, why)) {
      corpus.bad(piece.file, piece.line, why);
      continue;
    }
    document += piece.is_json ? text : piece.data;
    open = !piece.ends_document;
    if (open) continue;
    read.documents.push_back(document);
    document.clear();
  }
  REQUIRE_FALSE(open);
  REQUIRE(corpus.bytes_read() == corpus.total_bytes());
  read.skipped = corpus.skipped();
  read.first_skipped = corpus.first_skipped();
  return read;
}

using Texts = std::vector<std::string>;

}  // namespace

TEST_CASE("a plain file is one document, to the byte", "[corpus]") {
  const TempDir folder;
  for (const std::string& text : {std::string("one line"), std::string("a\r\n\r\nb\n\n"), std::string("\n"),
                                  std::string("\xEF\xBB\xBFmark\n"), std::string("a\0b zero\0", 9)}) {
    write_text(folder / "a.txt", text);
    REQUIRE(read_all({folder / "a.txt"}).documents == Texts{text});
  }
  write_text(folder / "a.txt", "");
  REQUIRE(read_all({folder / "a.txt"}).documents.empty());
}

TEST_CASE("a huge plain file comes in pieces", "[corpus]") {
  const TempDir folder;
  std::string text;
  for (int i = 0; text.size() < 3'000'000; ++i)
    text += "line " + std::to_string(i) +
            " gr\xC3\xBC\xC3\x9F"
            "e\n";
  write_text(folder / "a.txt", text);
  const Read read = read_all({folder / "a.txt"});
  REQUIRE(read.documents == Texts{text});
  REQUIRE(read.pieces > 8);
  REQUIRE(read.lines[0] == 1);
  REQUIRE(read.lines[1] > 1000);

  std::string line;  // a single line, whose characters of three bytes lie across every boundary
  while (line.size() < 2'000'001) line += "\xE6\x97\xA5";
  write_text(folder / "b.txt", line);
  const Read wide = read_all({folder / "b.txt"});
  REQUIRE(wide.documents == Texts{line});
  REQUIRE(wide.pieces > 3);

  CorpusOptions options;  // nowhere to cut: grows instead
  options.cut = [](std::string_view, std::size_t) { return std::size_t{0}; };
  REQUIRE(read_all({folder / "b.txt"}, options).pieces == 1);
  options.cut = [](std::string_view piece, std::size_t at) { return piece.rfind("\n", at - 1) + 1; };
  const Read lines = read_all({folder / "a.txt"}, options);
  REQUIRE(lines.documents == Texts{text});
  REQUIRE(lines.pieces > 8);
}

TEST_CASE("separators in plain text", "[corpus]") {
  const TempDir folder;
  CorpusOptions blank, mark;
  blank.blank_lines = true;
  mark.separator = "<|endoftext|>";
  write_text(folder / "a.txt", "\n\none\ntwo\n\n\r\n \t\nthree\n\nfour");
  const Read read = read_all({folder / "a.txt"}, blank);
  REQUIRE(read.documents == Texts{"one\ntwo\n", "three\n", "four"});
  REQUIRE(read.lines == std::vector<std::int64_t>{3, 8, 10});
  write_text(folder / "b.txt", "one <|endoftext|>\n<|endoftext|>\r\ntwo\n\n<|endoftext|>\n<|endoftext|>");
  REQUIRE(read_all({folder / "b.txt"}, mark).documents == Texts{"one <|endoftext|>\n", "two\n\n"});
}

TEST_CASE("JSONL", "[corpus]") {
  const TempDir folder;
  const std::string path = folder / "a.jsonl";
  write_text(path,
             "\xEF\xBB\xBF{\"text\": \"one\\n\\u00e9\\ud83d\\ude42\", \"id\": 1}\r\n\n  \n{\"meta\": {\"text\": "
             "\"inner\", \"a\": [1, {\"text\": 2}]}, "
             "\"text\": \"two\"}\n{\"text\":\"\"}");
  const Read read = read_all({path});
  REQUIRE(read.documents == Texts{"one\n\xC3\xA9\xF0\x9F\x99\x82", "two", ""});
  REQUIRE(read.lines == std::vector<std::int64_t>{1, 4, 5});
  CorpusOptions as_text;
  as_text.format = TextFormat::text;
  REQUIRE(read_all({path}, as_text).documents.size() == 1);
}

TEST_CASE("bad lines are named, or skipped and counted", "[corpus]") {
  const TempDir folder;
  const std::string json = folder / "a.jsonl", text = folder / "b.txt";
  CorpusOptions skip;
  skip.on_bad = OnBad::skip;
  const std::vector<std::pair<std::string, std::string>> lines{
      {"{\"text\": \"broken\"", "broken JSON"},
      {"{\"text\": \"bad \xFF byte\"}", "invalid UTF-8"},
      {"{\"txt\": \"misspelt\"}", "no \"text\""},
      {"{\"text\": 5}", "not a string"},
      {"{\"text\": [\"a\"]}", "not a string"},
      {"{\"text\": {\"text\": \"a\"}}", "not a string"},
      {"{\"text\": null}", "not a string"},
      {"[{\"text\": \"a\"}]", "array"},
      {"\"text\"", "no \"text\""},
      {"{\"text\": \"half \\ud800 pair\"}", "half a surrogate pair (\\ud800 alone) at byte 16"},
      {"{\"text\": \"a\"} {\"text\": \"b\"}", "broken JSON"},
      {"plain words", "broken JSON"}};
  for (const auto& [line, why] : lines) {
    CAPTURE(line);
    write_text(json, "{\"text\": \"good\"}\n" + line + "\n{\"text\": \"also good\"}\n");
    const std::string message = error_of([&] { read_all({json}); });
    REQUIRE(contains(message, json + ":2: "));
    REQUIRE(contains(message, why));
    const Read read = read_all({json}, skip);
    REQUIRE(read.documents == Texts{"good", "also good"});
    REQUIRE(read.skipped == 1);
    REQUIRE(contains(read.first_skipped, json + ":2: "));
  }
  for (const std::string bad : {"\xFF", "\xC3", "\xED\xA0\x80", "\xC0\x80", "ok \xE2\x82"}) {
    write_text(text, "good\n" + bad + "\nalso good");
    REQUIRE(contains(error_of([&] { read_all({text}); }), text + ":2: invalid UTF-8"));
    const Read read = read_all({text}, skip);
    REQUIRE(read.documents == Texts{"good\nalso good"});
    REQUIRE(read.skipped == 1);
  }
  write_text(text, "ends inside a character \xE2\x82");
  REQUIRE(contains(error_of([&] { read_all({text}); }), text + ":1: invalid UTF-8"));
}

TEST_CASE("compressed files read as plain ones", "[corpus]") {
  const TempDir folder;
  std::string text;
  for (int i = 0; i < 50000; ++i) text += "line " + std::to_string(i) + "\n";
  write_text(folder / "a.txt", text);
  const auto shell = [&](const std::string& command) {
    REQUIRE(std::system(("cd " + (folder / "") + " && " + command).c_str()) == 0);
  };
  shell("gzip -k a.txt");
  CHECK(read_all({folder / "a.txt.gz"}).documents == Texts{text});
  shell("cat a.txt.gz a.txt.gz > two.txt.gz");  // two members
  CHECK(read_all({folder / "two.txt.gz"}).documents == Texts{text + text});
  shell("head -c 50000 a.txt.gz > short.txt.gz");
  CHECK(contains(error_of([&] { read_all({folder / "short.txt.gz"}); }), "ends early"));
  shell("cp a.txt.gz bad.txt.gz && printf xxxxxxxx | dd of=bad.txt.gz bs=1 seek=30000 conv=notrunc 2>/dev/null");
  CHECK(contains(error_of([&] { read_all({folder / "bad.txt.gz"}); }), "damaged gzip data"));
  shell("cp a.txt false.txt.gz && cp a.txt false.txt.zst");
  CHECK(contains(error_of([&] { read_all({folder / "false.txt.gz"}); }), "named .gz"));
  CHECK(contains(error_of([&] { read_all({folder / "false.txt.zst"}); }), "named .zst"));
  if (std::system("command -v zstd >/dev/null 2>&1") != 0) return;
  shell("zstd -q a.txt && cat a.txt.zst a.txt.zst > two.txt.zst && head -c 20000 a.txt.zst > short.txt.zst");
  CHECK(read_all({folder / "a.txt.zst"}).documents == Texts{text});
  CHECK(read_all({folder / "two.txt.zst"}).documents == Texts{text + text});
  CHECK(contains(error_of([&] { read_all({folder / "short.txt.zst"}); }), "ends early"));
  shell("cp a.txt.zst bad.txt.zst && printf xxxxxxxx | dd of=bad.txt.zst bs=1 seek=20000 conv=notrunc 2>/dev/null");
  CHECK(contains(error_of([&] { read_all({folder / "bad.txt.zst"}); }), "damaged zstd data"));
}

TEST_CASE("zstd with a window larger than the memory is not called damaged", "[corpus]") {
  if (std::system("command -v zstd >/dev/null 2>&1") != 0) return;
  const TempDir folder;
  const std::string path = folder / "long.txt.zst";
  REQUIRE(std::system(("yes some words | head -c 1000000 | zstd -q --long=29 -o " + path).c_str()) == 0);
  const Ran ran = run_tool("tokenize", path + " --tokenizer bytes --threads 1 --out " + (folder / "x"));
  REQUIRE(ran.status == 0);
  if (!kCanLimitMemory) return;
  const Ran small =
      run_tool("tokenize", path + " --tokenizer bytes --threads 1 --out " + (folder / "y"), "ulimit -v 400000; ");
  CAPTURE(small.output);
  REQUIRE(small.status == 1);
  REQUIRE(contains(small.output, "memory"));
  REQUIRE_FALSE(contains(small.output, "damaged zstd"));
}

TEST_CASE("files, folders and globs", "[corpus]") {
  const TempDir folder;
  std::filesystem::create_directories(folder / "sub/.hidden");
  std::filesystem::create_directories(folder / "empty");
  write_text(folder / "sub/b.txt", "b");
  write_text(folder / "sub/a.jsonl", "{\"text\": \"a\"}");
  write_text(folder / "sub/.hidden/c.txt", "c");
  write_text(folder / "sub/.d.txt", "d");
  write_text(folder / "e.txt", "e");
  REQUIRE(read_all({folder / "sub", folder / "*.txt"}).documents == Texts{"a", "b", "e"});
  REQUIRE(contains(error_of([&] { Corpus({folder / "none.txt"}, {}); }), folder / "none.txt"));
  REQUIRE(contains(error_of([&] { Corpus({folder / "empty"}, {}); }), "no file in this folder"));
  REQUIRE(contains(error_of([&] { Corpus({}, {}); }), "no input"));
}
