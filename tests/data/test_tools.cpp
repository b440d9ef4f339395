// The data tools as a user meets them: command lines, exit codes, files.
#include <filesystem>

#include "core/file.h"
#include "data/shard.h"
#include "data/tokenizer.h"
#include "tools.h"
#include "places.h"

using namespace nsa;
using namespace nsa::data;

namespace {

/// Decoded content of shards, documents apart.
std::vector<std::string> documents_of(const std::vector<std::string>& globs, const std::string& spec) {
  const Tokenizer tokenizer = Tokenizer::open(spec);
  std::vector<std::string> documents(1);
  for (const std::string& file : expand_globs(globs)) {
    const Shard shard(file);
    std::vector<std::int32_t> tokens(static_cast<std::size_t>(shard.tokens()));
    shard.read(0, shard.tokens(), tokens.data(), tokenizer.vocab_size());
    for (std::int32_t token : tokens) {
      if (token == tokenizer.eot()) {
        documents.emplace_back();
      } else {
        documents.back() += tokenizer.decode({token});
      }
    }
  }
  REQUIRE(documents.back().empty());
  documents.pop_back();
  return documents;
}

std::string jsonl(int documents) {
  std::string lines;
  for (int i = 0; i < documents; ++i)
    lines += "{\"text\": \"document " + std::to_string(i) + " says the quick brown fox\"}\n";
  return lines;
}

bool nothing_but(const TempDir& folder, const std::vector<std::string>& names) {
  for (const auto& entry : std::filesystem::directory_iterator(folder / "")) {
    if (std::find(names.begin(), names.end(), entry.path().filename().string()) == names.end()) return false;
  }
  return true;
}

}  // namespace

TEST_CASE("tokenize: text in, the same text out", "[tools]") {
  const TempDir folder;
  const std::string text = training_text() + "\xE2\x96\x81 end";
  write_text(folder / "in.txt", text);
  for (const std::string& spec : {std::string("bytes"), small_model()}) {
    const std::string out = folder / (spec == "bytes" ? "bytes" : "model");
    const Ran ran =
        run_tool("tokenize", (folder / "in.txt") + " --tokenizer " + spec + " --out " + out + " --shard-tokens 5000");
    CAPTURE(ran.output);
    REQUIRE(ran.status == 0);
    REQUIRE(contains(ran.output, "1 documents"));
    REQUIRE(expand_globs({out + "_train_*.bin"}).size() > 1);
    REQUIRE(documents_of({out + "_train_*.bin"}, spec) == std::vector<std::string>{text});
  }
}

TEST_CASE("tokenize: the shards do not depend on the number of threads", "[tools]") {
  const TempDir folder;
  std::string text;
  while (text.size() < 1'500'000) text += training_text();  // one document, cut into many stretches
  write_text(folder / "a.txt", text);
  write_text(folder / "b.jsonl", jsonl(3000));
  for (const char* threads : {"1", "2", "5"}) {
    const Ran ran = run_tool("tokenize", folder / "a.txt " + (folder / "b.jsonl") + " --val-fraction 0.2 --tokenizer " +
                                             small_model() + " --threads " + threads + " --out " +
                                             (folder / ("t" + std::string(threads))));
    CAPTURE(ran.output);
    REQUIRE(ran.status == 0);
  }
  const Tokenizer tokenizer = Tokenizer::open(small_model());
  for (const char* side : {"_train_000000.bin", "_val_000000.bin"}) {
    const std::string one = read_file(folder / ("t1" + std::string(side)));
    REQUIRE(one == read_file(folder / ("t2" + std::string(side))));
    REQUIRE(one == read_file(folder / ("t5" + std::string(side))));
  }
  std::int64_t tokens = 0;
  for (const std::string& file : expand_globs({folder / "t1_*.bin"})) tokens += Shard(file).tokens();
  std::int64_t expected = static_cast<std::int64_t>(tokenizer.encode(text).size()) + 1;
  for (int i = 0; i < 3000; ++i)
    expected += static_cast<std::int64_t>(
                    tokenizer.encode("document " + std::to_string(i) + " says the quick brown fox").size()) +
                1;
  REQUIRE(tokens == expected);
}

TEST_CASE("tokenize: the split is by document and by seed", "[tools]") {
  const TempDir folder;
  write_text(folder / "in.jsonl", jsonl(1000));
  const auto split = [&](const std::string& name, const std::string& more) {
    const Ran ran = run_tool(
        "tokenize", (folder / "in.jsonl") + " --tokenizer bytes --val-fraction 0.1 --out " + (folder / name) + more);
    CAPTURE(ran.output);
    REQUIRE(ran.status == 0);
    return documents_of({folder / (name + "_val_*.bin")}, "bytes");
  };
  const auto val = split("a", ""), again = split("b", " --seed 1"), other = split("c", " --seed 2");
  REQUIRE((val.size() > 60 && val.size() < 140));
  REQUIRE(val == again);
  REQUIRE(val != other);
  auto all = documents_of({folder / "a_train_*.bin"}, "bytes");
  all.insert(all.end(), val.begin(), val.end());
  std::sort(all.begin(), all.end());
  REQUIRE(all.size() == 1000);
  REQUIRE(std::adjacent_find(all.begin(), all.end()) == all.end());

  write_text(folder / "one.txt", "a single document");
  const Ran ran =
      run_tool("tokenize", (folder / "one.txt") + " --tokenizer bytes --val-fraction 0.1 --out " + (folder / "d"));
  REQUIRE(ran.status == 1);
  REQUIRE(contains(ran.output, "none of 1 documents fell to validation"));
}

TEST_CASE("tokenize: bad input stops it and leaves nothing, or is skipped", "[tools]") {
  const TempDir folder;
  write_text(folder / "in.jsonl", jsonl(3) + "{broken\n" + jsonl(2) + "{\"text\": 1}\n");
  const std::string arguments = (folder / "in.jsonl") + " --tokenizer bytes --out " + (folder / "x");
  const Ran failed = run_tool("tokenize", arguments);
  REQUIRE(failed.status == 1);
  REQUIRE(contains(failed.output, "error: " + (folder / "in.jsonl") + ":4: broken JSON"));
  REQUIRE(nothing_but(folder, {"in.jsonl"}));
  const Ran skipped = run_tool("tokenize", arguments + " --on-error skip");
  REQUIRE(skipped.status == 0);
  REQUIRE(contains(skipped.output, "5 documents"));
  REQUIRE(contains(skipped.output, "skipped 2 bad lines, the first: " + (folder / "in.jsonl") + ":4:"));
  REQUIRE(documents_of({folder / "x_train_*.bin"}, "bytes").size() == 5);
  const Ran again = run_tool("tokenize", arguments + " --on-error skip");
  REQUIRE(again.status == 1);
  REQUIRE(contains(again.output, "exists already"));
}

TEST_CASE("tokenize: content decides, and a table says what was taken for what", "[tools]") {
  const TempDir folder;
  std::filesystem::create_directories(folder / "f");
  write_text(
      folder / "f/c4.00000-of-00001.json.v1",
      "{\"id\": NaN, \"meta\": {\"body\": \"inner\"}, \"text\": \"one\"}\n{\"text\": \"\"}\n{\"text\": \"three\"}\n");
  write_text(folder / "f/words.txt", "plain words");
  write_text(folder / "f/README.md", "# About");
  const auto tokenize = [&](const std::string& name, const std::string& more) {
    return run_tool("tokenize", (folder / "f") + " " + (folder / "f/words.txt") + " --tokenizer bytes --out " +
                                    (folder / name) + more);
  };
  const Ran ran = tokenize("a", "");
  CAPTURE(ran.output);
  REQUIRE(ran.status == 0);
  REQUIRE(documents_of({folder / "a_train_*.bin"}, "bytes") == std::vector<std::string>{"one", "three", "plain words"});
  std::string plain;  // runs of spaces as one
  for (const char c : ran.output) {
    if (c != ' ' || !plain.ends_with(' ')) plain += c;
  }
  REQUIRE(contains(plain, "plain text 1 1 11 "));
  REQUIRE(contains(plain, "JSON lines 1 2 8 "));
  REQUIRE(contains(plain, "left out: a read-me 1 "));
  REQUIRE(contains(plain, "left out: given twice 1 "));
  REQUIRE(tokenize("b", " --format text").status == 0);
  REQUIRE(documents_of({folder / "b_train_*.bin"}, "bytes").at(0).starts_with("{\"id\": NaN"));
  REQUIRE(contains(tokenize("c", " --text-field meta.body").output, "no \"meta.body\""));
  REQUIRE(tokenize("d", " --text-field meta.body --on-error skip").status == 0);
  REQUIRE(documents_of({folder / "d_train_*.bin"}, "bytes") == std::vector<std::string>{"inner", "plain words"});
  // An option that is for nothing given is refused.
  REQUIRE(tokenize("e", " --text-field text --format text").status == 2);
  REQUIRE(tokenize("e", " --document-separator blank-line --format jsonl").status == 2);
  REQUIRE(tokenize("e", " --document-separator blank-line").status == 0);

  // A pipe is read once, and known then.
  REQUIRE(std::system(("mkfifo " + (folder / "pipe")).c_str()) == 0);
  REQUIRE(std::system(("cat " + (folder / "f/c4.00000-of-00001.json.v1") + " > " + (folder / "pipe") + " &").c_str()) ==
          0);
  REQUIRE(run_tool("tokenize", (folder / "pipe") + " --tokenizer bytes --out " + (folder / "p")).status == 0);
  REQUIRE(documents_of({folder / "p_train_*.bin"}, "bytes") == std::vector<std::string>{"one", "three"});
}

TEST_CASE("tokenize: wrong command lines and places", "[tools]") {
  const TempDir folder;
  write_text(folder / "in.txt", "text");
  write_text(folder / "empty.txt", "");
  REQUIRE(run_tool("tokenize", "--help").status == 0);
  REQUIRE(run_tool("tokenize", "").status == 2);
  REQUIRE(run_tool("tokenize", (folder / "in.txt") + " --tokenizer bytes --out x --on-error ignore").status == 2);
  const auto refused = [&](const std::string& arguments) {
    const Ran ran = run_tool("tokenize", arguments);
    REQUIRE(ran.status == 1);
    REQUIRE(std::count(ran.output.begin(), ran.output.end(), '\n') == 1);  // one sentence
    return ran.output;
  };
  REQUIRE(contains(refused((folder / "none.txt") + " --tokenizer bytes --out " + (folder / "x")), folder / "none.txt"));
  REQUIRE(contains(refused((folder / "empty.txt") + " --tokenizer bytes --out " + (folder / "x")),
                   "no document with text"));
  REQUIRE(contains(refused((folder / "in.txt") + " --tokenizer " + (folder / "in.txt") + " --out " + (folder / "x")),
                   "not a sentencepiece model"));
  REQUIRE(contains(refused((folder / "in.txt") + " --tokenizer bytes --out /proc/nowhere/x"), "/proc/nowhere"));
  REQUIRE(nothing_but(folder, {"in.txt", "empty.txt"}));
  if (std::filesystem::exists("/dev/full")) {  // a full disk: the first write fails
    std::filesystem::create_symlink("/dev/full", folder / "full");
    REQUIRE(contains(error_of([&] {
                       OutputFile file(folder / "full");
                       file.write("x", 1);
                       file.finish();
                     }),
                     "No space left"));
  }
}

TEST_CASE("data tools: ~ at the start of a path is the home folder", "[tools]") {
  const TempDir dir;
  make_folders(dir / "home");
  write_text(dir / "home/text.txt", "some text");
  const std::string home = "HOME=" + dir / "home" + " ";
  const auto tokenized =
      run_tool("tokenize", "--tokenizer bytes --val-fraction 0 '--out=~/shards/a' '~/text.txt'", home);
  const auto inspected = run_tool("inspect_shard", "'~/shards/a_*.bin'", home);
  INFO(tokenized.output << inspected.output);
  CHECK(tokenized.status == 0);
  CHECK(inspected.status == 0);
  CHECK(std::filesystem::exists(dir / "home/shards/a_train_000000.bin"));
}

TEST_CASE("tokenize: an interrupted run leaves nothing", "[tools]") {
  const TempDir folder;
  std::string text;
  while (text.size() < 30'000'000) text += training_text();
  write_text(folder / "in.txt", text);
  const std::string tool = std::string(kBinaryDir) + "/tokenize ";
  const std::string script = tool + (folder / "in.txt") + " --threads 1 --tokenizer " + small_model() +
                             " --shard-tokens 100000 --out " + (folder / "x") + " > " + (folder / "log") +
                             " 2>&1 & pid=$!; while [ -z \"$(ls " + (folder / "") +
                             " | grep tmp)\" ]; do sleep 0.01; done; kill -INT $pid; wait $pid; exit $?";
  // A shell without job control starts background programs with SIGINT ignored; the tool installs its own handler all
  // the same.
  const int status = std::system(("bash -c '" + script + "'").c_str());
  REQUIRE(WEXITSTATUS(status) == 1);
  REQUIRE(contains(read_file(folder / "log"), "stopped by SIGINT"));
  REQUIRE(nothing_but(folder, {"in.txt", "log"}));
}

TEST_CASE("train_tokenizer: what cannot be trained is one sentence", "[tools]") {
  const TempDir folder;
  write_text(folder / "tiny.txt", "a few words, hardly a corpus");
  write_text(folder / "empty.txt", "");
  const auto refused = [&](const std::string& arguments) {
    const Ran ran = run_tool("train_tokenizer", arguments + " --out " + (folder / "x.model"));
    CAPTURE(ran.output);
    REQUIRE(ran.status == 1);
    REQUIRE(contains(ran.output, "error: "));
    REQUIRE_FALSE(std::filesystem::exists(folder / "x.model"));
    return ran.output;
  };
  REQUIRE(contains(refused((folder / "tiny.txt") + " --vocab-size 4096"),
                   "--vocab-size 4096: 28 bytes of text give at most"));
  REQUIRE(contains(refused((folder / "tiny.txt") + " --vocab-size 262"), "--vocab-size 262: too small"));
  REQUIRE(contains(refused(folder / "empty.txt"), "no text"));
  REQUIRE(nothing_but(folder, {"tiny.txt", "empty.txt"}));
}

TEST_CASE("train_tokenizer: long lines count, the sample is bounded, the result repeatable", "[tools]") {
  const TempDir folder;
  std::string line;  // 200 kB without a line end: "zebra" occurs nowhere else
  while (line.size() < 200'000) line += "zebra crossing ";
  write_text(folder / "in.txt", line + "\n" + training_text());
  const auto train = [&](const std::string& name, const std::string& more) {
    const Ran ran = run_tool("train_tokenizer",
                             (folder / "in.txt") + " --vocab-size 420 --threads 2 --out " + (folder / name) + more);
    CAPTURE(ran.output);
    REQUIRE(ran.status == 0);
    return ran.output;
  };
  train("a.model", "");
  train("b.model", "");
  REQUIRE(read_file(folder / "a.model") == read_file(folder / "b.model"));
  REQUIRE(Tokenizer::open(folder / "a.model").encode(" zebra").size() == 1);
  REQUIRE(contains(train("c.model", " --max-bytes 100000"), "sample: "));
  // No whole word, however long, may reach the trainer: it stops the program at 65536 characters.
  write_text(folder / "in.txt", std::string(300'000, 'a') + training_text());
  train("d.model", "");
}

TEST_CASE("train_tokenizer: text without a space, in which the space gets its piece all the same", "[tools]") {
  const TempDir folder;
  std::string dna, numbers, chinese, rare;
  for (unsigned i = 1; dna.size() < 40'000; i = i * 1664525u + 1013904223u) {
    dna += "ACGT"[i >> 30];
    numbers += std::to_string(i >> 20) + "\n";
    chinese += std::string("\xE6\x97") + static_cast<char>(0xA0 + (i >> 28));
  }
  rare = chinese + " " + chinese;
  for (const std::string& text : {dna, numbers, chinese, rare}) {
    write_text(folder / "in.txt", text);
    const std::string model = folder / "new/folder/x.model";
    const Ran ran = run_tool("train_tokenizer", (folder / "in.txt") + " --vocab-size 500 --threads 1 --out " + model);
    CAPTURE(ran.output);
    REQUIRE(ran.status == 0);
    const Tokenizer tokenizer = Tokenizer::open(model);
    REQUIRE(tokenizer.encode(" ").size() == 1);
    REQUIRE(tokenizer.decode(tokenizer.encode(" a  b \n")) == " a  b \n");
    REQUIRE(std::distance(std::filesystem::directory_iterator(folder / "new/folder"), {}) == 1);
  }
}

TEST_CASE("train_tokenizer: what must fail fails before the work", "[tools]") {
  const TempDir folder;
  write_text(folder / "in.txt", training_text());
  const auto train = [&](const std::string& more) {
    return run_tool("train_tokenizer", (folder / "in.txt") + " --vocab-size 400 --threads 1 " + more);
  };
  REQUIRE(train("--character-coverage 0.97 --out " + (folder / "x.model")).status == 2);
  for (const std::string& out : {folder / "in.txt/x.model", folder / ""}) {
    const Ran ran = train("--out " + out);
    CAPTURE(ran.output);
    REQUIRE(ran.status == 1);
    REQUIRE_FALSE(contains(ran.output, "sample"));
    REQUIRE(std::count(ran.output.begin(), ran.output.end(), '\n') == 1);
  }
}

TEST_CASE("tokenize: a word of megabytes takes no more memory than a short one", "[tools]") {
  const TempDir folder;
  std::string word;
  while (word.size() < 8'000'000) word += "the_quick_brown_fox_";
  write_text(folder / "in.jsonl", "{\"text\": \"" + word + "\"}\n");
  const Ran ran = run_tool(
      "tokenize", (folder / "in.jsonl") + " --threads 1 --tokenizer " + small_model() + " --out " + (folder / "x"),
      kCanLimitMemory ? "ulimit -v 600000; " : "");
  CAPTURE(ran.output);
  REQUIRE(ran.status == 0);
  REQUIRE(documents_of({folder / "x_train_*.bin"}, small_model()) == std::vector<std::string>{word});
}

TEST_CASE("inspect_shard", "[tools]") {
  const TempDir folder;
  write_text(folder / "in.jsonl", "{\"text\": \"aaab\"}\n{\"text\": \"aac\"}\n");
  REQUIRE(run_tool("tokenize", (folder / "in.jsonl") + " --tokenizer bytes --out " + (folder / "x")).status == 0);
  const std::string shard = folder / "x_train_000000.bin";
  const Ran good = run_tool("inspect_shard", shard + " --offset 5");
  CAPTURE(good.output);
  REQUIRE(good.status == 0);
  REQUIRE(contains(good.output, "llm.c uint16, 9 tokens"));
  REQUIRE(contains(good.output, "2 documents, 7 bytes of text"));
  REQUIRE(contains(good.output, "55.56 %"));
  REQUIRE(contains(good.output, "end of text"));
  REQUIRE(contains(good.output, "aac"));
  REQUIRE(contains(good.output, "ok: every token is below 257"));
  const Ran beyond = run_tool("inspect_shard", shard + " --vocab-size 256");
  REQUIRE(beyond.status == 1);
  REQUIRE(contains(beyond.output, "token 256 at offset 4 is outside the vocabulary of 256"));
  std::string content = read_file(shard);
  write_text(folder / "raw.bin", content.substr(1024));
  const Ran raw = run_tool("inspect_shard", folder / "raw.bin");
  REQUIRE(raw.status == 0);
  REQUIRE(contains(raw.output, "headerless uint16, 9 tokens"));
  REQUIRE(contains(raw.output, "vocabulary is unknown"));
  content[1024] = content[1032];  // the first "a" becomes half an end of text
  content[1025] = content[1033];
  write_text(shard, content);
  const Ran counts = run_tool("inspect_shard", shard);
  REQUIRE(counts.status == 1);
  REQUIRE(contains(counts.output, "3 end-of-text tokens, but its side-car says 2 documents"));
  content.pop_back();
  write_text(folder / "cut.bin", content);
  const Ran both = run_tool("inspect_shard", (folder / "cut.bin") + " " + (folder / "raw.bin"));
  REQUIRE(both.status == 1);
  REQUIRE(contains(both.output, "truncated"));
  REQUIRE(contains(both.output, "headerless uint16"));  // the good one is still shown
}
