#include <cctype>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>

#include "catch.h"
#include "core/file.h"
#include "core/json.h"
#include "error_of.h"
#include "temp_dir.h"
#include "train/config.h"
#include "places.h"

using namespace nsa;

namespace {

const char* kSmallest = R"({
  "model": { "vocab_size": 256, "hidden_size": 64, "num_layers": 2, "intermediate_size": 128 },
  "data": { "train": ["a*.bin"], "sequence_length": 100 },
  "train": { "steps": 1000, "batch_tokens": 1200, "micro_batch": 4 }
})";

Config small(const std::vector<std::string>& overrides = {}) { return parse_config(kSmallest, "c.json", overrides); }
std::string error(const std::vector<std::string>& overrides) {
  return error_of([&] { small(overrides); });
}

}  // namespace

TEST_CASE("config: the smallest one, with defaults for the rest") {
  const Config c = small();
  CHECK(c.model.attention.type == AttentionType::nsa);
  CHECK(c.train.optimizer.lr == 3e-4);
  CHECK(c.total_steps() == 1000);
  CHECK(c.accumulation() == 3);
  CHECK(small({"train.steps=0", "train.tokens=1201"}).total_steps() == 2);
}

TEST_CASE("config: to_json is complete, reads back the same, and its own output is a fixed point") {
  const Config c =
      small({"train.optimizer.lr=0.1234567890123456789", "model.rope_theta=500000", "train.optimizer.eps=1.1e-300",
             "data.val=x y,z", "data.seed=9007199254740991", "eval.sample_prompt=\"a\"\n\t\xc3\xa9",
             "model.attention.type=full", "train.schedule.type=wsd", "device=cpu", "log.tensorboard=false"});
  const std::string text = to_json(c);
  const Config back = parse_config(text, "saved");
  CHECK(to_json(back) == text);
  Config a = c, b = back;
  CHECK(differences(fields_of(a), fields_of(b)).empty());
  CHECK(back.train.optimizer.lr == 0.1234567890123456789);
  CHECK(back.train.optimizer.eps == 1.1e-300);
  const auto tree = nlohmann::json::parse(text);
  for (const FieldRef& f : fields_of(a).fields) {
    std::string pointer = "/" + f.path;
    for (char& ch : pointer) ch = ch == '.' ? '/' : ch;
    CHECK(tree.contains(nlohmann::json::json_pointer(pointer)));
  }
}

TEST_CASE("config: sizes that do not fit together") {
  CHECK(error({"model.attention.num_heads=6", "model.attention.num_kv_heads=4"}) ==
        "c.json: model.attention.num_heads = 6 must be a multiple of model.attention.num_kv_heads = 4");
  CHECK(contains(error({"model.attention.head_dim=33"}), "head_dim = 33 must be even"));
  CHECK(contains(error({"model.attention.compress_stride=12"}),
                 "compress_block = 32 must be a multiple of model.attention.compress_stride = 12"));
  CHECK(contains(error({"model.attention.select_block=72"}),
                 "select_block = 72 must be a multiple of model.attention.compress_stride = 16"));
  CHECK(contains(error({"model.attention.select_block=16"}),
                 "select_block = 16 must be at least model.attention.compress_block = 32"));
  CHECK(contains(error({"model.attention.select_count=2"}),
                 "select_count = 2 must be at least select_init + select_local = 1 + 2"));
  CHECK(contains(error({"model.norm_eps=0"}), "norm_eps"));
  CHECK(error({"model.attention.type=full", "model.attention.select_count=2", "model.attention.compress_stride=12"}) ==
        "");
  CHECK(error({"model.attention.select_count=3"}) == "");
  CHECK(contains(error({"model.attention.compressor=mean", "model.attention.compress_hidden=8"}),
                 "compress_hidden = 8 is the hidden size of the \"mlp\" compressor, but compressor is \"mean\""));
  CHECK(error({"model.attention.type=full", "model.attention.compressor=mean", "model.attention.compress_hidden=8"}) ==
        "");
  CHECK(error({"model.attention.compress_stride=32"}) == "");
}

TEST_CASE("config: length, batch, schedule, optimizer") {
  CHECK(contains(error({"train.steps=0"}), "either train.steps or train.tokens"));
  CHECK(contains(error({"train.tokens=5"}), "train.steps = 1000 and train.tokens = 5 both say"));
  CHECK(error({"train.batch_tokens=1000"}) ==
        "c.json: train.batch_tokens = 1000 must be a multiple of train.micro_batch * data.sequence_length = 4 * 100 = "
        "400; the nearest is 800 or 1200");
  CHECK(contains(error({"train.batch_tokens=399"}), "the nearest is 400"));
  CHECK(contains(error({"train.schedule.warmup_steps=1001"}), "warmup_steps = 1001 is more than the 1000 steps"));
  CHECK(error({"train.schedule.warmup_steps=1000"}) == "");
  CHECK(contains(error({"train.schedule.type=wsd", "train.schedule.warmup_steps=900"}),
                 "do not fit into the 1000 steps"));
  CHECK(contains(error({"train.optimizer.beta1=1"}), "beta1"));
  CHECK(contains(error({"train.optimizer.beta2=1"}), "beta2"));
  CHECK(contains(error({"train.optimizer.eps=0"}), "eps"));
  CHECK(contains(error({"checkpoint.keep=1"}),
                 "checkpoint.keep (checkpoints kept, newest first) must lie in 2 .. 1000000, got 1"));
}

TEST_CASE("config: data, samples, names") {
  CHECK(contains(error({"data.train="}), "data.train is an empty list"));
  CHECK(contains(error({"data.train=a,,b"}), "data.train holds an empty string"));
  CHECK(contains(error({"eval.every=10"}), "data.val is empty"));
  CHECK(contains(error({"eval.sample_every=10"}), "data.tokenizer is empty"));
  CHECK(contains(error({"log.dir="}), "log.dir is empty"));
  CHECK(contains(error({"log.name=a/b"}), "log.name = \"a/b\""));
  CHECK(contains(error({"log.name=.."}), "log.name"));
  CHECK(contains(error({"train.lr=3e-4"}), "did you mean \"train.optimizer.lr\"?"));
}

TEST_CASE("config: a config made in code is checked as well") {
  Config c = small();
  c.model.vocab_size = 0;
  CHECK(contains(error_of([&] { check(c); }),
                 "model.vocab_size (V, number of tokens the model knows) must lie in 2 .. 16777216, got 0"));
  CHECK(contains(error_of([&] { check(c.model); }), "model.vocab_size"));
  c = small();
  c.train.batch_tokens = 0;
  CHECK(contains(error_of([&] { check(c); }), "train.batch_tokens"));
}

TEST_CASE("config: ~ at the start of a path is the home folder, or refused") {
  const std::string before = std::getenv("HOME") ? std::getenv("HOME") : "";
  setenv("HOME", "/home/me", 1);
  const Config c = small({"data.train=~/a*.bin,b~.bin", "data.val=~/v", "data.tokenizer=~/t.model", "log.dir=~"});
  CHECK(c.data.train == std::vector<std::string>{"/home/me/a*.bin", "b~.bin"});
  CHECK(c.data.val[0] == "/home/me/v");
  CHECK(c.data.tokenizer == "/home/me/t.model");
  CHECK(c.log.dir == "/home/me");
  CHECK(small({"log.dir=~nobody-of-this-name/x"}).log.dir == "~nobody-of-this-name/x");
  unsetenv("HOME");
  CHECK(contains(error({"log.dir=~/runs"}), "~/runs: ~ is the home folder, but HOME is not set"));
  CHECK(error({"log.dir=runs"}) == "");
  if (!before.empty()) setenv("HOME", before.c_str(), 1);
}

TEST_CASE("config: from a file; the run is named after it") {
  TempDir dir;
  const std::string path = dir.path() + "/small.v2.json";
  std::ofstream(path) << kSmallest;
  CHECK(load_config(path).log.name == "small.v2");
  CHECK(load_config(path, {"log.name=x"}).log.name == "x");
  std::ofstream(path) << "{\n  \"modle\": {}\n}";
  CHECK(error_of([&] { load_config(path); }) == path + ", line 2: unknown key \"modle\"; did you mean \"model\"?");
  try {
    load_config(dir.path() + "/none.json");
    FAIL("read a file that is not there");
  } catch (const Error& e) {
    CHECK(e.code() == Exit::usage);
    CHECK(contains(e.what(), "none.json: No such file or directory"));
  }
}

TEST_CASE("config: reference and schema name every field") {
  const std::string reference = config_reference();
  const auto schema = nlohmann::json::parse(config_schema());
  Config c;
  for (const FieldRef& f : fields_of(c).fields) {
    CHECK(contains(reference, "| `" + f.path + "` |"));
    std::string pointer = "/properties/" + f.path;
    for (std::size_t i = 0; (i = pointer.find('.', i)) != std::string::npos;) pointer.replace(i, 1, "/properties/");
    CHECK(schema.contains(nlohmann::json::json_pointer(pointer)));
  }
  CHECK(schema["required"] == nlohmann::json({"model", "data", "train"}));
}

namespace {

// The program's text without comments, without field lists, and without what only shows a config; `derived`: the lines
// of config structs that return something made of their own fields.
struct Code {
  std::string text, derived;

  Code() {
    for (const char* root : {"/src", "/include"}) {
      for (const auto& entry : std::filesystem::recursive_directory_iterator(kSourceDir + std::string(root))) {
        const std::string path = entry.path().string(), file = entry.path().filename().string();
        if (entry.is_regular_file() && !contains(path, "core/fields") && file != "plan.cpp" && file != "config.cpp")
          add(read_file(path), file == "config.h");
      }
    }
  }
  void add(std::string file, bool is_config) {
    for (std::size_t at; (at = file.find("void fields(FieldList& v) {")) != std::string::npos;)
      file.erase(at, file.find("\n  }\n", at) - at);
    std::istringstream lines(file);
    for (std::string line; std::getline(lines, line);) {
      line = line.substr(0, line.find("//"));
      text += line + "\n";
      if (is_config && contains(line, "return ")) derived += line + "\n";
    }
  }
  static bool has_word(const std::string& code, const std::string& word) {
    const auto is_name = [](char c) { return std::isalnum(static_cast<unsigned char>(c)) || c == '_'; };
    for (std::size_t at = 0; (at = code.find(word, at)) != std::string::npos; ++at) {
      const bool begins = at == 0 || word[0] == '.' || !is_name(code[at - 1]);
      if (begins && !is_name(code[at + word.size()])) return true;
    }
    return false;
  }
};

}  // namespace

// A field that nothing reads is an option that is accepted and ignored.
TEST_CASE("config: every field is read by code that acts on it") {
  const Code code;
  Config c;
  const FieldList list = fields_of(c);
  const auto last = [](const std::string& path) { return path.substr(path.rfind('.') + 1); };
  std::multiset<std::string> names;
  for (const FieldRef& f : list.fields) names.insert(last(f.path));
  for (const auto& section : list.sections) names.insert(last(section.path));
  const std::set<std::string> common{"tokens", "steps", "name", "dir", "window", "val", "batches"};  // of others too
  for (const FieldRef& f : list.fields) {
    const std::size_t dot = f.path.rfind('.');
    const std::string name = last(f.path), section = dot == std::string::npos ? "config" : last(f.path.substr(0, dot));
    // A name that stands for one thing only may be read from a part of the config: optimizer.lr as o.lr.
    const bool alone = names.count(name) == 1;
    const bool read = Code::has_word(code.text, section + "." + name) ||
                      Code::has_word(code.text, section + "_." + name) ||
                      (alone && !common.count(name) && Code::has_word(code.text, "." + name)) ||
                      (alone && Code::has_word(code.derived, name));
    INFO(f.path);
    CHECK(read);
  }
}

TEST_CASE("config: every file under configs/ is valid") {
  if (!std::filesystem::is_directory(std::string(kSourceDir) + "/configs")) return;
  for (const auto& entry : std::filesystem::directory_iterator(std::string(kSourceDir) + "/configs")) {
    if (entry.path().extension() == ".json") CHECK(error_of([&] { load_config(entry.path().string()); }) == "");
  }
}
