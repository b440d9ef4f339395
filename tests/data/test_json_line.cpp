#include "data/json_line.h"

#include "tools.h"

using namespace nsa;
using namespace nsa::data;

namespace {

/// The text, or "WHY: ..." when there is none.
std::string text_in(const std::string& line, const std::string& field = "text") {
  std::string text, why;
  return text_of_line(line, field, text, why) ? text : "WHY: " + why;
}

JsonStart start_of(const std::string& bytes) {
  std::size_t size = 0;
  return json_at(bytes, size);
}

}  // namespace

TEST_CASE("the text of a JSON line", "[json_line]") {
  CHECK(text_in(R"({"text": "a"})") == "a");
  CHECK(text_in(" \t{ \"text\" :\"\" , \"x\":[ ] } \r\n") == "");
  CHECK(text_in(R"({"text": "\"\\\/\b\f\n\r\t\u0041\u00e9\u20AC\ud83d\ude42"})") ==
        "\"\\/\b\f\n\r\tA\xC3\xA9\xE2\x82\xAC\xF0\x9F\x99\x82");
  CHECK(text_in(R"({"text": "zero \u0000."})") == std::string("zero \0.", 7));
  CHECK(text_in(R"({"te\u0078t": "spelt out"})") == "spelt out");
  CHECK(text_in(R"({"text": "one", "text": "two"})") == "two");  // as every JSON library has it
  CHECK(text_in(R"({"meta": {"text": "inner", "a": [1, {"text": 2}]}, "text": "outer"})") == "outer");
  CHECK(text_in(R"({"text": "a }, \" ] {"})") == "a }, \" ] {");
}

TEST_CASE("what stands in other fields is no reason to refuse a line", "[json_line]") {
  for (const char* value : {R"("\ud800")",
                            R"("\udc00 \ud800\ud800")",
                            "NaN",
                            "-NaN",
                            "nan",
                            "Infinity",
                            "-Infinity",
                            "inf",
                            "1e999",
                            "-1E-9999",
                            "123456789012345678901234567890",
                            "0",
                            "-0.5e+1",
                            "true",
                            "null",
                            "[]",
                            "{}",
                            R"([[{"a": [NaN, {"text": 7}]}]])",
                            R"({"a": "\ud800", "text": null})",
                            "\"bad \xFF byte\"",
                            "\"raw \t tab\"",
                            R"("\q")",
                            R"("}")",
                            R"("\\")"}) {
    CAPTURE(value);
    CHECK(text_in(std::string(R"({"text": "a", "x": )") + value + "}") == "a");
    CHECK(text_in(std::string(R"({"x":)") + value + R"(,"text":"a"})") == "a");
  }
  CHECK(text_in(R"({"\ud800": 1, "text": "a"})") == "a");
  const std::string deep = std::string(1'000'000, '[') + std::string(1'000'000, ']');
  CHECK(text_in("{\"x\": " + deep + ", \"text\": \"a\"}") == "a");
}

TEST_CASE("what is wrong with a JSON line is said", "[json_line]") {
  for (const auto& [value, what] : std::vector<std::pair<std::string, std::string>>{
           {"5", "\"text\" is not a string but a number"},
           {"1e999", "not a string but a number"},
           {"NaN", "not a string but NaN"},
           {"-Infinity", "not a string but -Infinity"},
           {"null", "not a string but null"},
           {"true", "not a string but true"},
           {"[\"a\"]", "not a string but an array"},
           {"{\"text\": \"a\"}", "not a string but an object"},
           {R"("ab\ud800")", "half a surrogate pair (\\ud800 alone) at byte 13"},
           {R"("\ude00\ud83d")", "half a surrogate pair (\\ude00 alone)"},
           {R"("\ud83d\u0041")", "half a surrogate pair (\\ud83d alone)"},
           {"\"a\xFFz\"", "invalid UTF-8 (byte 0xFF) at byte 12, in \"text\""},
           {"\"\xED\xA0\x80\"", "invalid UTF-8 (byte 0xED)"},
           {"\"a\tb\"", "the control character 0x09 stands as it is at byte 12"},
           {R"("a\qb")", "broken JSON at byte 13"},
           {R"("a\u12g4b")", "broken JSON at byte 13"},
           {R"("a\u12)", "broken JSON"},
           {"tru", "broken JSON at byte 10"},
           {"01", "broken JSON at byte 10"},
           {"1.", "broken JSON"},
           {"", "broken JSON"}}) {
    CAPTURE(value);
    CHECK(contains(text_in("{\"text\": " + value + "}"), what));
  }
  for (const auto& [line, what] : std::vector<std::pair<std::string, std::string>>{
           {"{\"text\": \"a\"", "broken JSON at byte 13"},
           {"{\"text\": \"a\"} x", "broken JSON at byte 15"},
           {"{\"text\": \"a\",}", "broken JSON at byte 14"},
           {"{\"text\" \"a\"}", "broken JSON at byte 9"},
           {"{text: \"a\"}", "broken JSON at byte 2"},
           {"{\"x\": [1, 2}, \"text\": \"a\"}", "broken JSON at byte 12"},
           {"words", "broken JSON at byte 1"},
           {"[{\"text\": \"a\"}]", "an array where an object"},
           {"\"text\"", "a string where an object"},
           {"{}", "no \"text\" in the JSON object (it is empty"},
           {"{\"body\": 1, \"id\": {\"text\": 2}}",
            "no \"text\" in the JSON object (it has \"body\", \"id\"; --text-field"}}) {
    CAPTURE(line);
    CHECK(contains(text_in(line), what));
  }
}

TEST_CASE("a field may lie in an object", "[json_line]") {
  const std::string line = R"({"a": {"b": {"c": "deep"}, "text": "mid"}, "a.x": "dotted", "text": "top", "s": "flat"})";
  CHECK(text_in(line, "a.b.c") == "deep");
  CHECK(text_in(line, "a.text") == "mid");
  CHECK(text_in(line, "a.x") == "dotted");
  CHECK(text_in(line, "s") == "flat");
  CHECK(contains(text_in(line, "a.c"), "no \"a.c\""));
  CHECK(contains(text_in(line, "s.t"), "no \"s.t\""));
  CHECK(contains(text_in(line, "a.b"), "\"a.b\" is not a string but an object"));
}

TEST_CASE("where JSON ends, and whether it does", "[json_line]") {
  CHECK(start_of("{}") == JsonStart::whole);
  CHECK(start_of(" \n[1, 2]") == JsonStart::whole);
  for (const char* part :
       {"{", "{\"a", "{\"a\"", "{\"a\":", "{\"a\": 1", "{\"a\": 1,", "[", "[tr", "[{\"a\": \"\\", "{\"a\": [1], "})
    CHECK(start_of(part) == JsonStart::partial);
  for (const char* none : {"", "a", "{a", "{\"a\"}", "{\"a\" 1", "[1 2", "[tr]", "{]"}) {
    CAPTURE(none);
    CHECK(start_of(none) == JsonStart::none);
  }
  std::size_t size = 0;
  json_at(" {\"a\": 1} {", size);
  CHECK(size == 9);
}
