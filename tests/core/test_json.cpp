#include "catch.h"
#include "core/json.h"
#include "error_of.h"

using namespace nsa;

namespace {
nlohmann::json parse(const std::string& text, KeyLines* lines = nullptr) {
  return parse_json(text, "a.json", Comments::allow, Exit::usage, lines);
}
std::string error(const std::string& text) {
  return error_of([&] { parse(text); });
}
}  // namespace

TEST_CASE("json: the tree is the library's own") {
  const std::string text =
      R"({"a": [1, -2, 2.5, true, null, "x\u00e9", [], {}], "b": {"c": {"d": 18446744073709551615}}, "": 0})";
  CHECK(parse(text) == nlohmann::json::parse(text));
  CHECK(parse("[]") == nlohmann::json::array());
  CHECK(parse("7") == 7);
}

TEST_CASE("json: comments only where they are allowed") {
  CHECK(parse("// one\n{ \"a\": 1 /* two */ } // three") == nlohmann::json({{"a", 1}}));
  CHECK_THROWS_AS(parse_json("{} // no", "a.json", Comments::refuse, Exit::error), Error);
}

TEST_CASE("json: every key knows its line") {
  KeyLines lines;
  parse("{\n\"a\": 1,\n\n\"b\": {\n  \"c\": 12345\n},\n\"d\": 2}", &lines);
  CHECK(lines == KeyLines{{"a", 2}, {"b", 4}, {"b.c", 5}, {"d", 7}});
}

TEST_CASE("json: a key given twice") {
  KeyLines lines;
  CHECK(error_of([&] { parse("{\"t\": {\n\"lr\": 1,\n\"x\": 0,\n\"lr\": 2}}", &lines); }) ==
        "a.json, line 4: the key \"t.lr\" is given twice (first on line 2); remove one of them");
  CHECK(contains(error("{\"a\":{},\"a\":{}}"), "\"a\" is given twice"));
  CHECK(error("{\"a\": {\"x\": 1}, \"b\": {\"x\": 1}, \"c\": [{\"x\": 1}, {\"x\": 1}]}") == "");
}

TEST_CASE("json: broken text names line, column and the likely mistake") {
  CHECK(contains(error("{\n  \"a\": 1,\n}"), "a.json, line 3, column 1: not valid JSON"));
  CHECK(contains(error("{\n  \"a\": 1,\n}"), "remove the comma before '}'"));
  CHECK(contains(error("[1, 2, ]"), "remove the comma before ']'"));
  CHECK(contains(error("{\"a\": 1"), "cut off"));
  CHECK(contains(error("{\"a\" 1}"), "line 1"));
  for (const char* bad : {"", " ", "{", "}", "nul", "{\"a\": NaN}", "{\"a\": 1e999}", "\"\xff\"", "{} {}",
                          "{\"a\": 01}", "'a'", "\xef\xbb"})
    CHECK(error(bad) != "");
}

TEST_CASE("json: text made to hurt is refused, not obeyed") {
  CHECK(contains(error(std::string(1000000, '[')), "nested deeper"));
  CHECK(error("\"" + std::string(1000000, 'x')).size() < 1000);
  CHECK(error("{\"" + std::string(100000, 'k') + "\": 1, \"" + std::string(100000, 'k') + "\": 2}").size() < 1000);
}

TEST_CASE("json: is_utf8") {
  CHECK(is_utf8(""));
  CHECK(is_utf8("a\xc3\xa9\n\x01"));
  CHECK_FALSE(is_utf8("\xc3"));
  CHECK_FALSE(is_utf8("\xff"));
}
