// make_synthetic as a user runs it: what the documents are, that exactly their answers count, what is refused.
#include <algorithm>
#include <filesystem>
#include <map>
#include <set>

#include "core/file.h"
#include "data/loader.h"
#include "data/shard.h"
#include "data/utf8.h"
#include "tools.h"

using namespace nsa;
using namespace nsa::data;

namespace {

struct Sample {
  std::vector<std::int32_t> tokens;
  std::vector<bool> answers;

  std::string text() const { return std::string(tokens.begin(), tokens.end()); }
  /// The answers, stretch by stretch.
  std::vector<std::string> answered() const {
    std::vector<std::string> all;
    for (std::size_t i = 0; i < tokens.size(); ++i) {
      if (!answers[i]) continue;
      if (i == 0 || !answers[i - 1]) all.emplace_back();
      all.back() += static_cast<char>(tokens[i]);
    }
    return all;
  }
};

/// What a loader of sequences of T hands out is a document each.
std::vector<Sample> samples_of(const std::string& glob, std::int64_t T, std::int64_t vocab_size = 257) {
  const TokenData data({glob}, T, vocab_size);
  REQUIRE(data.skipped_tokens() == 0);
  std::vector<Sample> samples;
  std::vector<std::int32_t> inputs(static_cast<std::size_t>(T)), targets(inputs.size());
  for (std::int64_t s = 0; s < data.sequences(); ++s) {
    data.read(s, inputs.data(), targets.data());
    Sample sample{inputs, std::vector<bool>(inputs.size())};
    for (std::size_t t = 0; t + 1 < inputs.size(); ++t) {
      sample.answers[t + 1] = targets[t] >= 0;
      if (targets[t] >= 0) REQUIRE(targets[t] == inputs[t + 1]);
    }
    REQUIRE(targets.back() == -1);  // the first token of the next document
    samples.push_back(std::move(sample));
  }
  return samples;
}

Ran make(const std::string& arguments) { return run_tool("make_synthetic", arguments); }

std::map<std::string, std::string> files_of(const std::string& folder) {
  std::map<std::string, std::string> files;
  for (const auto& entry : std::filesystem::directory_iterator(folder))
    files[entry.path().filename().string()] = read_file(entry.path().string());
  return files;
}

std::size_t times(const std::string& text, const std::string& part) {
  std::size_t n = 0;
  for (std::size_t at = text.find(part); at != text.npos; at = text.find(part, at + 1)) ++n;
  return n;
}

}  // namespace

TEST_CASE("copy: the second half is the answer, and a sequence is a document", "[synthetic]") {
  const TempDir folder;
  const Ran ran =
      make("copy --out " + (folder / "c") + " --length 20 --documents 50 --val-documents 9 --shard-tokens 400");
  INFO(ran.output);
  REQUIRE(ran.status == 0);
  REQUIRE(contains(ran.output, "train: 50 documents of 42 tokens, 20.0 of them answers"));
  REQUIRE(contains(ran.output, "data.sequence_length = 42"));
  REQUIRE(expand_globs({folder / "c_train_*.bin"}).size() == 6);  // nine documents each, five in the last
  const auto train = samples_of(folder / "c_train_*.bin", 42), val = samples_of(folder / "c_val_*.bin", 42);
  REQUIRE(train.size() == 50);
  REQUIRE(val.size() == 9);
  std::set<std::string> all;
  for (const auto* set : {&train, &val}) {
    for (const Sample& sample : *set) {
      const std::string text = sample.text(), half = text.substr(0, 20);
      REQUIRE(text == half + "\n" + half + "\n");
      REQUIRE(std::all_of(half.begin(), half.end(), [](char c) { return c >= 'a' && c <= 'z'; }));
      REQUIRE(sample.answered() == std::vector<std::string>{half});
      REQUIRE(sample.answers[21]);
      all.insert(half);
    }
  }
  REQUIRE(all.size() == 59);
  const Ran inspected = run_tool("inspect_shard", (folder / "c_val_000000.bin") + " --count 42");
  INFO(inspected.output);
  REQUIRE(inspected.status == 0);
  REQUIRE(contains(inspected.output, "mask: 180 of 379 tokens count as targets (47.49 %)"));
  REQUIRE(contains(inspected.output, "[[" + val[0].text().substr(0, 20) + "]]"));
}

TEST_CASE("the same seed gives the same files, another one others", "[synthetic]") {
  const TempDir a, b, c, text;
  write_text(text / "book.txt", training_text());
  for (const std::string& task : {std::string("copy --length 9"), std::string("mqar --length 64 --pairs 4"),
                                  std::string("induction --length 512 --distances 20,90"),
                                  "needle --length 512 --depths 3 --text " + (text / "book.txt")}) {
    INFO(task);
    const std::string name = task.substr(0, task.find(' ')), size = " --documents 12 --val-documents 3 --out ";
    REQUIRE(make(task + " --seed 5" + size + (a / name)).status == 0);
    REQUIRE(make(task + " --seed 5" + size + (b / name)).status == 0);
    REQUIRE(make(task + " --seed 6" + size + (c / name)).status == 0);
  }
  REQUIRE(files_of(a.path()).size() == 3 * (2 + 2 + 3 + 4));
  REQUIRE(files_of(a.path()) == files_of(b.path()));
  for (const auto& [name, content] : files_of(c.path())) {
    if (!name.ends_with(".json")) REQUIRE(content != files_of(a.path()).at(name));
  }
}

TEST_CASE("training and validation share no document, however few there are", "[synthetic]") {
  const TempDir folder;
  const Ran ran = make("copy --length 1 --documents 500 --val-documents 200 --out " + (folder / "x"));
  INFO(ran.output);
  REQUIRE(ran.status == 0);
  std::set<std::string> train, val;
  for (const Sample& sample : samples_of(folder / "x_train_*.bin", 4)) train.insert(sample.text());
  for (const Sample& sample : samples_of(folder / "x_val_*.bin", 4)) val.insert(sample.text());
  REQUIRE(train.size() + val.size() == 26);
  for (const std::string& text : val) REQUIRE(train.count(text) == 0);
}

TEST_CASE("mqar: every key comes back once, followed by its value, which is the answer", "[synthetic]") {
  for (const std::string power : {"0", "0.01"}) {
    const TempDir folder;
    const Ran ran =
        make("mqar --length 256 --pairs 16 --keys 20 --values 30 --noise 7 --documents 40 --val-documents 2 --power " +
             power + " --out " + (folder / "m"));
    INFO(ran.output);
    REQUIRE(ran.status == 0);
    REQUIRE(contains(ran.output, "model.vocab_size = 57"));
    double places = 0;
    for (const Sample& sample : samples_of(folder / "m_train_*.bin", 256, 57)) {
      std::map<std::int32_t, std::int32_t> value_of;
      for (std::size_t i = 0; i < 32; i += 2) {
        REQUIRE((sample.tokens[i] >= 7 && sample.tokens[i] < 27));
        REQUIRE((sample.tokens[i + 1] >= 27 && sample.tokens[i + 1] < 57));
        REQUIRE(value_of.emplace(sample.tokens[i], sample.tokens[i + 1]).second);
      }
      for (std::size_t i = 0; i < 256; ++i) {
        if (i < 32) REQUIRE(!sample.answers[i]);
        if (!sample.answers[i]) continue;
        REQUIRE(value_of.at(sample.tokens[i - 1]) == sample.tokens[i]);
        value_of.erase(sample.tokens[i - 1]);
        places += static_cast<double>(i - 32) / 224 / 40 / 16;
      }
      REQUIRE(value_of.empty());
      REQUIRE(std::count_if(sample.tokens.begin(), sample.tokens.end(), [](int t) { return t < 7; }) == 256 - 64);
    }
    if (power == "0") {
      REQUIRE(places == Approx(0.5).margin(0.05));
    } else {
      REQUIRE(places < 0.3);
    }
    REQUIRE(run_tool("inspect_shard", folder / "m_val_000000.bin").status == 0);
  }
}

TEST_CASE("induction: what followed a prefix follows it again at the distance asked for", "[synthetic]") {
  const TempDir folder;
  const Ran ran =
      make("induction --length 600 --prefix 6 --suffix 3 --distances 12,200 --documents 30 --val-documents 10 --out " +
           (folder / "i"));
  INFO(ran.output);
  REQUIRE(ran.status == 0);
  const auto distances = [&](const std::string& glob) {
    std::map<std::size_t, int> seen;
    for (const Sample& sample : samples_of(folder / glob, 600)) {
      const std::string text = sample.text();
      int answers = 0;
      for (std::size_t i = 0; i < text.size(); ++i) {
        if (!sample.answers[i] || sample.answers[i - 1]) continue;
        const std::string pair = text.substr(i - 6, 9);
        const std::size_t first = text.find(pair);
        REQUIRE(first < i - 6);
        ++seen[i - 6 - first];
        ++answers;
      }
      REQUIRE(answers == 4);
      REQUIRE(std::count(sample.answers.begin(), sample.answers.end(), true) == 12);
    }
    return seen;
  };
  const auto near = distances("i_val_distance12_*.bin"), far = distances("i_val_distance200_*.bin"),
             both = distances("i_train_*.bin");
  REQUIRE(near == std::map<std::size_t, int>{{12, 40}});
  REQUIRE(far == std::map<std::size_t, int>{{200, 40}});
  REQUIRE((both.size() == 2 && both.at(12) > 20 && both.at(200) > 20));
}

TEST_CASE("needle: one line in the book answers the question at the end, at the depth of its set", "[synthetic]") {
  const TempDir folder;
  write_text(folder / "train.txt", training_text());
  std::string jsonl;
  for (int i = 0; i < 200; ++i)
    jsonl += "{\"text\": \"Der Zug f\\u00e4hrt \\u65e5\\u672c nach " + std::to_string(i) + ".\"}\n";
  write_text(folder / "val.jsonl", jsonl);
  const Ran ran = make("needle --length 1000 --needles 3 --depths 5 --documents 30 --val-documents 8 --text " +
                       (folder / "train.txt") + " --val-text " + (folder / "val.jsonl") + " --out " + (folder / "n"));
  INFO(ran.output);
  REQUIRE(ran.status == 0);
  const auto check = [](const Sample& sample, bool of_val) {
    const std::string text = sample.text(), line = "\nThe magic number of ";
    REQUIRE(times(text, line) == 3);
    const std::string question = text.substr(text.rfind("\nWhat is"));
    const std::string name = question.substr(29, 6);
    REQUIRE(sample.answered() == std::vector<std::string>{question.substr(37, 5)});
    REQUIRE(question == "\nWhat is the magic number of " + name + "? " + question.substr(37, 5) + "\n");
    const std::string needle = line + name + " is " + question.substr(37, 5) + ".\n";
    REQUIRE(times(text, needle) == 1);
    REQUIRE(contains(text, of_val ? "Zug f" : "quick brown"));
    REQUIRE(!contains(text, of_val ? "quick" : "Zug"));
    REQUIRE(utf8_valid_prefix(text) == text.size());
    return static_cast<double>(text.find(needle)) / 1000;
  };
  double mean = 0;
  for (const Sample& sample : samples_of(folder / "n_train_*.bin", 1000)) mean += check(sample, false) / 30;
  REQUIRE(mean == Approx(0.47).margin(0.15));
  for (int depth = 0; depth < 5; ++depth) {
    const auto samples = samples_of(folder / fmt::format("n_val_depth{:02}_*.bin", 20 * depth), 1000);
    REQUIRE(samples.size() == 8);
    for (const Sample& sample : samples) {
      const double at = check(sample, true);
      REQUIRE((at > 0.16 * depth && at < 0.2 * depth + 0.31));
    }
  }
}

TEST_CASE("what make_synthetic cannot do is one sentence", "[synthetic]") {
  const TempDir folder;
  write_text(folder / "short.txt", "A short text.\n");
  const auto refused = [&](const std::string& arguments, int status = 2) {
    const Ran ran = make(arguments + " --out " + (folder / "x"));
    INFO(ran.output);
    REQUIRE(ran.status == status);
    REQUIRE(std::count(ran.output.begin(), ran.output.end(), '\n') == 1);
    REQUIRE(files_of(folder.path()).size() == 1);
    return ran.output;
  };
  REQUIRE(contains(refused(""), "subcommand"));
  REQUIRE(contains(refused("copy --length 0"), "--length"));
  REQUIRE(contains(refused("copy --documents 0"), "--documents"));
  REQUIRE(contains(refused("mqar --length 100 --pairs 26"), "take 104 tokens"));
  REQUIRE(contains(refused("mqar --length 101 --pairs 5"), "it is even"));
  REQUIRE(contains(refused("mqar --keys 63"), "64 pairs have keys of their own"));
  REQUIRE(contains(refused("induction --distances 11"), "it is 12 to"));
  REQUIRE(contains(refused("induction --length 1000 --distances 16,989"), "--distances 989"));
  REQUIRE(contains(refused("induction --length 190 --distances 20"), "more than half"));
  REQUIRE(contains(refused("needle"), "--text"));
  REQUIRE(contains(refused("needle --text " + (folder / "short.txt")), "give more text"));
  REQUIRE(contains(refused("needle --questions 2 --text " + (folder / "short.txt")), "there are 1 needles"));
  REQUIRE(contains(refused("needle --length 150 --text " + (folder / "short.txt")), "less than half"));
  REQUIRE(contains(refused("needle --text " + (folder / "none.txt"), 1), "none.txt"));
  REQUIRE(make("copy --length 5 --documents 3 --val-documents 2 --out " + (folder / "x")).status == 0);
  REQUIRE(contains(make("copy --length 5 --out " + (folder / "x")).output, "exists already"));
  std::filesystem::remove_all(folder / "x_train_000000.bin");
  for (const char* rest : {".json", ".mask"})
    std::filesystem::remove(folder / ("x_train_000000.bin" + std::string(rest)));
  REQUIRE(contains(make("copy --length 5 --out " + (folder / "x")).output, "x_val_000000.bin exists already"));
  REQUIRE(!std::filesystem::exists(folder / "x_train_000000.bin"));
}
