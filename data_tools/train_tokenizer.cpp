// Trains a sentencepiece BPE model with byte fallback that loses nothing: no normalisation, no dummy prefix, every
// space kept. The corpus is sampled down to
// --max-bytes in stretches of a few KiB, so long lines are never dropped and a corpus of any size can be given.
#include <sentencepiece_trainer.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <unordered_map>

#include "command_line.h"
#include "core/device.h"
#include "core/file.h"
#include "core/memory.h"
#include "core/rng.h"
#include "core/text.h"
#include "data/json_line.h"
#include "data/tokenizer.h"
#include "data/utf8.h"

namespace nsa::data {
namespace {

// The trainer counts positions within a word in 16 bits and stops the program beyond; a stretch is never longer than
// this.
constexpr std::size_t kStretchBytes = 4096;
constexpr std::size_t kLongWord = 64;

struct Options {
  CorpusArguments corpus;
  std::string out;
  std::int64_t vocab_size = 32768, max_bytes = 200'000'000, seed = 1;
  double character_coverage = 0.9995;
  bool split_digits = false;
  int threads = 0;
};

/// A uniform sample of stretches: those with the smallest random numbers that fit into `max_bytes`.
class Sample {
 public:
  Sample(std::int64_t max_bytes, std::uint64_t seed)
      : max_bytes_(static_cast<std::size_t>(max_bytes)), draw_(seed, "tokenizer sample") {}

  void add_document(std::string_view text) {
    while (!text.empty()) {
      const std::size_t size = stretch_size(text);
      add(text.substr(0, size));
      text.remove_prefix(size);
    }
  }
  /// In the order of the corpus.
  std::vector<std::string> take() {
    std::sort(heap_.begin(), heap_.end(), [](const Stretch& a, const Stretch& b) { return a.number < b.number; });
    std::vector<std::string> texts;
    for (Stretch& stretch : heap_) texts.push_back(std::move(stretch.text));
    heap_.clear();
    return texts;
  }
  std::size_t bytes() const { return bytes_; }
  std::size_t seen_bytes() const { return seen_bytes_; }

 private:
  struct Stretch {
    std::uint64_t random, number;
    std::string text;
    bool operator<(const Stretch& other) const { return random < other.random; }
  };

  /// Ends before a space if there is one, so that no word is torn, and never inside a character.
  static std::size_t stretch_size(std::string_view text) {
    if (text.size() <= kStretchBytes) return text.size();
    std::size_t size = text.rfind(' ', kStretchBytes);
    if (size == std::string_view::npos || size == 0) size = kStretchBytes;
    while (utf8_is_continuation(static_cast<unsigned char>(text[size]))) --size;
    return size;
  }

  void add(std::string_view text) {
    const std::uint64_t number = number_++;
    seen_bytes_ += text.size();
    bytes_ += text.size();
    heap_.push_back({draw_.bits(number), number, std::string(text)});
    std::push_heap(heap_.begin(), heap_.end());
    while (bytes_ > max_bytes_ && heap_.size() > 1) {
      std::pop_heap(heap_.begin(), heap_.end());
      bytes_ -= heap_.back().text.size();
      heap_.pop_back();
    }
  }

  std::size_t max_bytes_, bytes_ = 0, seen_bytes_ = 0;
  Rng draw_;
  std::uint64_t number_ = 0;
  std::vector<Stretch> heap_;
};

/// What the trainer gets to see: the library skips a whole sentence that holds one of its two marks (U+2585; U+2581 it
/// would take for a space) or a zero byte.
std::string without_marks(const std::string& text) {
  std::string clean;
  clean.reserve(text.size());
  for (std::size_t i = 0; i < text.size(); ++i) {
    const std::string_view three = std::string_view(text).substr(i, 3);
    if (three == "\xE2\x96\x81" || three == "\xE2\x96\x85") {
      i += 2;
    } else if (text[i] != '\0') {
      clean += text[i];
    }
  }
  return clean;
}

class Sentences : public sentencepiece::SentenceIterator {
 public:
  explicit Sentences(const std::vector<std::string>& texts) : texts_(texts) { load(); }
  bool done() const override { return i_ >= texts_.size(); }
  void Next() override {
    ++i_;
    load();
  }
  const std::string& value() const override { return value_; }
  sentencepiece::util::Status status() const override { return {}; }

 private:
  void load() {
    while (i_ < texts_.size() && (value_ = without_marks(texts_[i_])).empty()) ++i_;
  }
  const std::vector<std::string>& texts_;
  std::size_t i_ = 0;
  std::string value_;
};

std::vector<std::string> read_sample(const Options& options, Corpus& corpus) {
  TakenTable taken(corpus);
  Sample sample(options.max_bytes, static_cast<std::uint64_t>(options.seed));
  std::string text, why;
  for (CorpusPiece piece; corpus.next(piece);) {
    if (!piece.is_json) {
      text.swap(piece.data);
    } else if (!text_of_line(piece.data, options.corpus.options.text_field, text, why)) {
      corpus.bad(piece.file, piece.line, why);
      continue;
    }
    sample.add_document(text);
    taken.count(piece.file, text.size(), piece.ends_document);
  }
  NSA_CHECK(sample.bytes() > 0, "no text in the input: a tokenizer needs some to learn from");
  std::printf("%s", taken.text().c_str());
  std::printf("sample: %s of %s bytes of text from %s files\n",
              grouped(static_cast<std::int64_t>(sample.bytes())).c_str(),
              grouped(static_cast<std::int64_t>(sample.seen_bytes())).c_str(),
              grouped(static_cast<std::int64_t>(corpus.files().size())).c_str());
  if (corpus.skipped() > 0)
    std::printf("skipped %s bad lines, the first: %s\n", grouped(corpus.skipped()).c_str(),
                corpus.first_skipped().c_str());
  return sample.take();
}

/// The library's message as a sentence about the command line.
[[noreturn]] void explain(const Options& options, std::size_t bytes, const std::string& message) {
  const auto number_after = [&](const char* mark) -> std::int64_t {
    const std::size_t at = message.find(mark);
    return at == std::string::npos ? 0 : std::atoll(message.c_str() + at + std::char_traits<char>::length(mark));
  };
  if (const std::int64_t most = number_after("set it to a value <= "); most > 0) {
    fail("--vocab-size {}: {} bytes of text give at most {} pieces: ask for fewer, or give more text",
         options.vocab_size, bytes, most);
  }
  if (message.find("smaller than required_chars") != std::string::npos ||
      message.find("Increase vocab_size") != std::string::npos) {
    fail(
        "--vocab-size {}: too small: 256 pieces are bytes, 2 are marks, and the characters of the text need theirs: "
        "ask for more, or lower "
        "--character-coverage",
        options.vocab_size);
  }
  fail("the tokenizer library could not train {} pieces on {} bytes of text: {}", options.vocab_size, bytes, message);
}

/// Says beforehand what the library would find out after an hour: it keeps the positions inside words, 83 bytes for
/// each byte of text, and long words hardly ever occur twice.
void check_memory(const std::vector<std::string>& texts, std::size_t bytes) {
  double need = 0;
  for (const std::string& text : texts) {
    for (std::size_t begin = 0; begin < text.size();) {
      const std::size_t end = std::min(text.find(' ', begin), text.size());
      if (end - begin > kLongWord) need += 83 * static_cast<double>(end - begin);
      begin = end + 1;
    }
  }
  const auto available = static_cast<double>(available_memory(Where::cpu));
  NSA_CHECK(available == 0 || need < available,
            "learning from {} bytes with so few spaces takes about {} of memory, and {} are available: --max-bytes {} "
            "would fit",
            grouped(static_cast<std::int64_t>(bytes)), human_bytes(need), human_bytes(available),
            static_cast<std::int64_t>(0.8 * available / need * static_cast<double>(bytes)));
}

/// Where the model lies until it is proven; its folder is made.
std::string unproven_name(const std::string& out) {
  const std::filesystem::path folder = std::filesystem::path(out).parent_path();
  if (!folder.empty()) make_folders(folder.string());
  NSA_CHECK(!std::filesystem::is_directory(out), "--out {}: this is a folder; name the .model file to write", out);
  return out + ".unproven";
}

int train(const Options& options) {
  Corpus corpus = options.corpus.open(options.corpus.corpus_options());
  const std::string unproven = unproven_name(options.out);
  OutputFile place(unproven);  // before an hour of work, which may have nowhere to go
  std::vector<std::string> texts = read_sample(options, corpus);
  std::size_t bytes = 0;
  for (const std::string& text : texts) bytes += text.size();
  check_memory(texts, bytes);
  const auto has_space = [](const std::string& text) { return text.find(' ') != std::string::npos; };
  if (std::none_of(texts.begin(), texts.end(), has_space)) texts.push_back(" ");  // what it never saw gets no piece
  const std::unordered_map<std::string, std::string> settings{
      {"model_type", "bpe"},
      {"vocab_size", fmt::format("{}", options.vocab_size)},
      {"character_coverage", fmt::format("{}", options.character_coverage)},
      {"required_chars", "\xE2\x96\x81"},  // the space, also where it is rare
      {"byte_fallback", "true"},
      {"normalization_rule_name", "identity"},
      {"add_dummy_prefix", "false"},
      {"remove_extra_whitespaces", "false"},
      {"allow_whitespace_only_pieces", "true"},
      {"split_digits", options.split_digits ? "true" : "false"},
      {"max_sentence_length", fmt::format("{}", 4 * kStretchBytes)},
      {"unk_id", "0"},
      {"eos_id", "1"},
      {"eos_piece", kEotPiece},
      {"bos_id", "-1"},
      {"pad_id", "-1"},
      {"num_threads", fmt::format("{}", options.threads > 0 ? options.threads : available_cores())},
      {"minloglevel", "2"},
  };
  Sentences sentences(texts);
  std::string model;
  const auto status = sentencepiece::SentencePieceTrainer::Train(settings, &sentences, &model);
  if (!status.ok()) explain(options, bytes, status.ToString());

  // Proof before the file gets its name: the whole sample survives.
  place.write(model.data(), model.size());
  place.finish();
  std::size_t tokens = 0;
  try {
    const Tokenizer tokenizer = Tokenizer::open(unproven);
    for (const std::string& text : texts) {
      const std::vector<std::int32_t> encoded = tokenizer.encode(text);
      tokens += encoded.size();
      NSA_CHECK(tokenizer.decode(encoded) == text,
                "the trained tokenizer does not give back a text of its own sample; {} was not written", options.out);
    }
  } catch (...) {
    std::remove(unproven.c_str());
    throw;
  }
  write_file_atomic(options.out, model);
  std::remove(unproven.c_str());
  std::printf("%s: %s pieces, %.3f bytes per token on the sample, every stretch of it given back exactly\n",
              options.out.c_str(), grouped(options.vocab_size).c_str(),
              static_cast<double>(bytes) / static_cast<double>(tokens));
  return 0;
}

}  // namespace
}  // namespace nsa::data

int main(int argc, char** argv) {
  nsa::data::Options options;
  CLI::App app("Trains a tokenizer (sentencepiece BPE with byte fallback, lossless) on text");
  options.corpus.add_to(app);
  app.add_option("--out", options.out, "the .model file to write")->required()->transform(nsa::cli::home_path());
  app.add_option("--vocab-size", options.vocab_size, "pieces, of which 258 are bytes and marks")
      ->check(CLI::Range(260, 1 << 24))
      ->capture_default_str();
  app.add_option("--max-bytes", options.max_bytes, "learn from a sample of this size at most")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_option("--seed", options.seed, "of the sample")->capture_default_str();
  app.add_option("--character-coverage", options.character_coverage,
                 "share of the characters met that get a piece; the others are written as bytes")
      ->check(CLI::Range(0.98, 1.0))  // the library's own
      ->capture_default_str();
  app.add_flag("--split-digits", options.split_digits, "every digit is a token of its own");
  app.add_option("--threads", options.threads, "0: all cores")->check(CLI::Range(0, 4096))->capture_default_str();
  return nsa::data::run_tool(app, argc, argv, [&] { return nsa::data::train(options); });
}
