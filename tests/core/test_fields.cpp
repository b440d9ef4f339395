#include "catch.h"
#include "core/fields.h"
#include "core/json.h"
#include "error_of.h"

using namespace nsa;

namespace {

enum class Colour : int { red, green };
const Choices kColours{"red", "green"};

struct Inner {
  double rate = 0.5;
  bool flag = false;
  Colour colour = Colour::green;
  void fields(FieldList& v) {
    v.field("rate", rate, "a rate", Range{0, 1});
    v.field("flag", flag, "a | flag");
    v.choice("colour", colour, kColours, "a colour");
  }
};
struct Outer {
  std::int64_t count = 0, big = 0;
  std::string name = "n";
  std::vector<std::string> files;
  Inner inner;
  void fields(FieldList& v) {
    v.field("count", count, required("how many"), Range{1, 100});
    v.field("big", big, "any integer");
    v.field("name", name, "its name");
    v.field("files", files, "some files");
    v.section("inner", inner, "the inside");
  }
};

Outer read(const std::string& text) {
  Outer outer;
  read_json(fields_of(outer), text, "o.json");
  return outer;
}
Outer with(const std::string& assignment) {
  Outer outer;
  apply_override(fields_of(outer), assignment);
  return outer;
}
std::string read_error(const std::string& text) {
  return error_of([&] { read(text); });
}
std::string override_error(const std::string& assignment) {
  return error_of([&] { with(assignment); });
}

}  // namespace

TEST_CASE("fields: a file fills what it names and leaves the rest") {
  const Outer o = read(R"({ "count": 3, // three
                            "files": ["a", "b,c"], "inner": { "rate": 1, "colour": "red" } })");
  CHECK(o.count == 3);
  CHECK(o.name == "n");
  CHECK(o.files == std::vector<std::string>{"a", "b,c"});
  CHECK(o.inner.rate == 1.0);
  CHECK_FALSE(o.inner.flag);
  CHECK(o.inner.colour == Colour::red);
  CHECK(read("{\"count\": 1}").inner.colour == Colour::green);
}

TEST_CASE("fields: integers may be written 1e1 or 2.0, but not 1.5") {
  CHECK(read(R"({"count": 1e1})").count == 10);
  CHECK(read(R"({"count": 2.0})").count == 2);
  CHECK(read(R"({"count": 1, "big": -9223372036854775808})").big == std::numeric_limits<std::int64_t>::min());
  CHECK(read(R"({"count": 1, "big": 9007199254740993})").big == 9007199254740993);
  CHECK(contains(read_error(R"({"count": 1.5})"), "o.json, line 1: count (how many) must be an integer, got 1.5"));
  CHECK(contains(read_error(R"({"count": 1, "big": 9223372036854775808})"), "big"));
  CHECK(contains(read_error(R"({"count": 1, "big": 1e300})"), "big"));
  CHECK(contains(read_error(R"({"count": 1, "big": 9007199254740993.0e1})"), "all its digits"));
}

TEST_CASE("fields: wrong types, ranges and choices are named with the path and the line") {
  CHECK(read_error("{\n\"count\": 0}") == "o.json, line 2: count (how many) must lie in 1 .. 100, got 0");
  CHECK(read_error("{\"count\": 101}") == "o.json, line 1: count (how many) must lie in 1 .. 100, got 101");
  CHECK(contains(read_error(R"({"count": "3"})"), "got the string \"3\"; write it without quotes"));
  CHECK(contains(read_error(R"({"count": 1, "name": 3})"), "name (its name) must be a string, got 3"));
  CHECK(contains(read_error(R"({"count": 1, "name": null})"), "got null"));
  CHECK(contains(read_error(R"({"count": 1, "files": "a"})"), "must be a list of strings"));
  CHECK(contains(read_error(R"({"count": 1, "files": ["a", 1]})"), "got 1"));
  CHECK(contains(read_error(R"({"count": 1, "inner": {"flag": 1}})"),
                 "inner.flag (a | flag) must be true or false, got 1"));
  CHECK(contains(read_error(R"({"count": 1, "inner": {"flag": "true"}})"), "without quotes"));
  CHECK(contains(read_error(R"({"count": 1, "inner": {"rate": 1.01}})"),
                 "inner.rate (a rate) must lie in 0 .. 1, got 1.01"));
  CHECK(contains(read_error(R"({"count": 1, "inner": {"colour": "gren"}})"),
                 "must be one of \"red\", \"green\", got the string \"gren\"; did you mean \"green\"?"));
  CHECK(contains(read_error(R"({"count": 1, "inner": {"colour": 0}})"), "inner.colour"));
  CHECK(contains(read_error(R"({"count": 1, "inner": 5})"),
                 "inner is a section (the inside), expected an object { ... }, got 5"));
  CHECK(contains(read_error(R"({"count": {"x": 1}})"), "got an object"));
  CHECK(contains(read_error("[1]"), "one object"));
}

TEST_CASE("fields: missing, unknown, misplaced and duplicate keys") {
  CHECK(read_error("{}") == "o.json: \"count\" is missing (how many); it has no default");
  CHECK(read_error("{\"count\": 1,\n \"cuont\": 2}") ==
        "o.json, line 2: unknown key \"cuont\"; did you mean \"count\"?");
  CHECK(contains(read_error(R"({"count": 1, "iner": {}})"), "did you mean \"inner\"?"));
  CHECK(contains(read_error(R"({"count": 1, "rate": 1})"), "unknown key \"rate\"; did you mean \"inner.rate\"?"));
  CHECK(contains(read_error(R"({"count": 1, "inner": {"Flag": true}})"), "did you mean \"inner.flag\"?"));
  CHECK(contains(read_error(R"({"count": 1, "inner": {"zzzzzz": true}})"),
                 "unknown key \"inner.zzzzzz\"; inner has rate, flag, colour"));
  CHECK(contains(read_error(R"({"count": 1, "inner.rate": 1})"), "contains a dot"));
  CHECK(contains(read_error(R"({"count": 1, "count": 1})"), "given twice"));
  CHECK(contains(read_error(R"({"count": 1, "": 1})"), "unknown key"));
}

TEST_CASE("fields: overrides obey the same rules") {
  CHECK(with("count=7").count == 7);
  CHECK(with("count=1e1").count == 10);
  CHECK(with("inner.rate=.25").inner.rate == 0.25);
  CHECK(with("inner.rate=3e-4").inner.rate == 3e-4);
  CHECK(with("inner.flag=true").inner.flag);
  CHECK(with("inner.colour=red").inner.colour == Colour::red);
  CHECK(with("name=").name == "");
  CHECK(with("name=a=b").name == "a=b");
  CHECK(with("name=12").name == "12");
  CHECK(with("files=").files.empty());
  CHECK(with("files=a").files == std::vector<std::string>{"a"});
  CHECK(with("files=a,b,").files == std::vector<std::string>{"a", "b", ""});
  CHECK(override_error("count=x") == "override \"count=x\": count (how many) must be an integer, got the string \"x\"");
  CHECK(contains(override_error("count=0"), "1 .. 100"));
  CHECK(contains(override_error("inner.rate=nan"), "must be a number"));
  CHECK(contains(override_error("inner.rate="), "must be a number"));
  CHECK(contains(override_error("inner.flag=1"), "true or false"));
  CHECK_FALSE(contains(override_error("inner.flag=1"), "quotes"));
  CHECK(contains(override_error("rate=1"), "did you mean \"inner.rate\"?"));
  CHECK(contains(override_error("inner=1"), "inner is a section"));
  CHECK(contains(override_error("count"), "section.key=value"));
  CHECK(contains(override_error("=1"), "section.key=value"));
  CHECK(contains(override_error("name=\xff"), "UTF-8"));
  try {
    with("count=x");
  } catch (const Error& error) {
    CHECK(error.code() == Exit::usage);
  }
}

TEST_CASE("fields: what is written reads back the same") {
  Outer o;
  o.count = 42;
  o.big = 9007199254740993;
  o.name = "quotes \" and \\ and \xc3\xa9\n";
  o.files = {"x", ""};
  o.inner = {0.1 + 0.2, true, Colour::red};
  const std::string text = write_json(fields_of(o));
  Outer back = read(text);
  CHECK(back.inner.rate == 0.1 + 0.2);
  CHECK(back.name == o.name);
  CHECK(back.big == o.big);
  CHECK(write_json(fields_of(back)) == text);
  CHECK(differences(fields_of(o), fields_of(back)).empty());
  Outer standard;
  CHECK(differences(fields_of(standard), fields_of(o))[0] == "count: 0 -> 42");
  CHECK(differences(fields_of(standard), fields_of(o)).back() == "inner.colour: green -> red");
}

TEST_CASE("fields: ranges of a config built in code") {
  Outer o;
  o.count = 1;
  CHECK_NOTHROW(check_ranges(fields_of(o), ""));
  o.inner.rate = std::numeric_limits<double>::quiet_NaN();
  CHECK(contains(error_of([&] { check_ranges(fields_of(o), "top."); }), "top.inner.rate (a rate) must lie in 0 .. 1"));
}

TEST_CASE("fields: reference and schema") {
  Outer o;
  const std::string table = markdown_reference(fields_of(o));
  CHECK(contains(table, "| `count` | integer | required | 1 .. 100 | how many |"));
  CHECK(contains(table, "| `inner.flag` | true or false | `false` |  | a \\| flag |"));
  CHECK(contains(table, "| `inner.colour` | choice | `\"green\"` | \"red\", \"green\" | a colour |"));
  const auto schema = nlohmann::json::parse(json_schema(fields_of(o)));
  CHECK(schema["required"] == nlohmann::json({"count"}));
  CHECK(schema["additionalProperties"] == false);
  CHECK(schema["properties"]["count"]["maximum"] == 100);
  CHECK(schema["properties"]["inner"]["properties"]["colour"]["enum"] == nlohmann::json({"red", "green"}));
  CHECK(schema["properties"]["files"]["items"]["type"] == "string");
}

TEST_CASE("did_you_mean: misspellings, keys of other sections, parts; nothing when nothing is near") {
  const std::vector<std::string> names{"train.steps", "train.optimizer.lr", "train.schedule.warmup_steps",
                                       "data.seed",   "train.seed",         "model.num_layers"};
  CHECK(did_you_mean("train.stpes", names) == "train.steps");
  CHECK(did_you_mean("trian.steps", names) == "train.steps");
  CHECK(did_you_mean("train.lr", names) == "train.optimizer.lr");
  CHECK(did_you_mean("train.optimzer.lr", names) == "train.optimizer.lr");
  CHECK(did_you_mean("train.seeds", names) == "train.seed");
  CHECK(did_you_mean("model.layers", names) == "model.num_layers");
  CHECK(did_you_mean("warmup", names) == "train.schedule.warmup_steps");
  CHECK(did_you_mean("model.xyz", names) == "");
  CHECK(did_you_mean("", names) == "");
  CHECK(did_you_mean("ab", {"cd", "ef"}) == "");
  CHECK(did_you_mean(std::string(100000, 'a'), names) == "");
  CHECK(did_you_mean("a", {}) == "");
}
