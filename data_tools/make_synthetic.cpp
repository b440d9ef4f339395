// Data in which far context decides: copying, recall, needles in books, induction (docs/synthetic.md), with masks by
// which only the answers count as targets. Every document is drawn from the seed and its number alone. Which side it
// may be on follows from its content, so that training and validation cannot share one, however few there are.
#include <cstdio>
#include <memory>
#include <optional>

#include "command_line.h"
#include "core/signals.h"
#include "data/json_line.h"
#include "data/shard_writer.h"
#include "data/tokenizer.h"
#include "synthetic_tasks.h"

namespace nsa::data {
namespace {

constexpr std::uint64_t kSides = 8;  // one of so many documents is for validation
constexpr int kTries = 1000;         // to draw one of the side wanted

struct Options {
  std::string out;
  std::int64_t seed = 1, documents = 1000, val_documents = 100, shard_tokens = 100'000'000;
  std::int64_t copy_length = 512;
  MqarOptions mqar;
  InductionOptions induction;
  NeedleOptions needle;
  std::vector<std::string> text, val_text;
  std::int64_t max_text = 64 << 20;
};

bool is_validation(const Document& document) {
  std::uint64_t hash = 0;
  for (const std::int32_t token : document.tokens) hash = mix64(hash ^ static_cast<std::uint64_t>(token));
  return hash % kSides == 0;
}

Document document_of(const Task& task, const Options& options, const std::string& set, std::int64_t number,
                     std::int64_t bin) {
  for (int i = 0; i < kTries; ++i) {
    Draws draws(static_cast<std::uint64_t>(options.seed), fmt::format("{} {} {}", set, number, i));
    Document document = task.make(draws, bin);
    NSA_CHECK(static_cast<std::int64_t>(document.tokens.size()) == task.length, "a document of {} tokens instead of {}",
              document.tokens.size(), task.length);
    if (is_validation(document) == (bin != kTraining)) return document;
  }
  fail("{}: there are too few different documents to keep training and validation apart: make them longer", set);
}

/// One set of documents on its way to its shards.
class Set {
 public:
  /// bin: -1 for training.
  Set(const Task& task, const Options& options, std::string name, std::int64_t documents, std::int64_t bin)
      : task_(task),
        options_(options),
        name_(std::move(name)),
        documents_(documents),
        bin_(bin),
        per_shard_(std::max<std::int64_t>((options.shard_tokens - 1) / task.length, 1)),
        writer_(options.out + "_" + name_, task.info, per_shard_ * task.length + 1) {
    if (!writer_.warning().empty()) std::fprintf(stderr, "make_synthetic: warning: %s\n", writer_.warning().c_str());
  }

  /// A shard holds whole documents and a token more, without which its last sequence would not be read: neighbours
  /// share one.
  void write(const StopSignals& stop) {
    const bool bytes = task_.info.tokenizer == "bytes";
    for (std::int64_t number = 0; number < documents_; ++number) {
      NSA_CHECK(!stop.requested(), "stopped by {}: nothing was written", stop.name());
      const Document document = document_of(task_, options_, name_, number, bin_);
      answers_ += std::count(document.answers.begin(), document.answers.end(), true);
      writer_.append(document.tokens, document.answers, bytes ? task_.length : 0);
      writer_.end_document();
      if ((number + 1) % per_shard_ == 0 || number + 1 == documents_)
        writer_.append({task_.filler}, {false}, bytes ? 1 : 0);
    }
  }

  void finish() {
    writer_.finish();
    std::printf("%s: %s documents of %s tokens, %.1f of them answers: %s%s\n", name_.c_str(),
                grouped(documents_).c_str(), grouped(task_.length).c_str(),
                static_cast<double>(answers_) / static_cast<double>(documents_), writer_.files().front().c_str(),
                writer_.files().size() == 1 ? "" : " ...");
  }

 private:
  const Task& task_;
  const Options& options_;
  std::string name_;
  std::int64_t documents_, bin_, per_shard_, answers_ = 0;
  ShardWriter writer_;
};

int make(const Task& task, const Options& options) {
  const StopSignals stop;
  std::vector<std::unique_ptr<Set>> sets;  // all are opened first: one of them may be there already
  sets.push_back(std::make_unique<Set>(task, options, "train", options.documents, kTraining));
  for (std::size_t bin = 0; bin < task.bins.size() && options.val_documents > 0; ++bin)
    sets.push_back(std::make_unique<Set>(task, options, "val" + task.bins[bin], options.val_documents,
                                         static_cast<std::int64_t>(bin)));
  for (const auto& set : sets) set->write(stop);
  for (const auto& set : sets) set->finish();
  std::printf("for data.sequence_length = %lld, model.vocab_size = %lld, data.tokenizer = \"%s\"\n",
              static_cast<long long>(task.length), static_cast<long long>(task.info.vocab_size),
              task.info.tokenizer.c_str());
  return 0;
}

/// Of bytes, with nothing between documents.
Task bytes_task(std::int64_t length) {
  const Tokenizer tokenizer = Tokenizer::open("bytes");
  Task task;
  task.info.tokenizer = tokenizer.spec();
  task.info.tokenizer_hash = tokenizer.hash();
  task.info.vocab_size = tokenizer.vocab_size();
  task.length = length;
  task.filler = '\n';
  return task;
}

int copy(const Options& options) {
  Task task = bytes_task(2 * options.copy_length + 2);
  task.make = [&](Draws& draws, std::int64_t) { return make_copy(draws, options.copy_length); };
  return make(task, options);
}

int mqar(const Options& options) {
  const MqarOptions& o = options.mqar;
  if (o.length % 2 || o.slots() < o.pairs)
    fail_usage("--length {}: {} pairs and their queries take {} tokens, and it is even", o.length, o.pairs,
               4 * o.pairs);
  if (o.keys < o.pairs) fail_usage("--keys {}: {} pairs have keys of their own", o.keys, o.pairs);
  Task task;
  task.info.vocab_size = o.noise + o.keys + o.values;
  task.length = o.length;
  task.make = [&](Draws& draws, std::int64_t) { return make_mqar(draws, o); };
  return make(task, options);
}

int induction(const Options& options) {
  const InductionOptions& o = options.induction;
  for (const std::int64_t distance : o.distances) {
    if (distance < o.width() || distance > o.length - o.width())
      fail_usage("--distances {}: with --prefix {}, --suffix {} and --length {} it is {} to {}", distance, o.prefix,
                 o.suffix, o.length, o.width(), o.length - o.width());
  }
  if (2 * o.pairs * o.width() > o.length / 2)
    fail_usage("--pairs {}: twice {} letters each are more than half of --length {}", o.pairs, o.width(), o.length);
  Task task = bytes_task(o.length);
  task.bins.clear();
  for (const std::int64_t distance : o.distances) task.bins.push_back(fmt::format("_distance{}", distance));
  task.make = [&](Draws& draws, std::int64_t bin) { return make_induction(draws, bin, o); };
  return make(task, options);
}

/// The first max_text bytes of the inputs, documents one after the other.
std::string read_text(const std::vector<std::string>& inputs, std::size_t max_text) {
  Corpus corpus(inputs, {});
  std::string all, text, why;
  for (CorpusPiece piece; all.size() < max_text && corpus.next(piece);) {
    if (piece.is_json && !text_of_line(piece.data, "text", text, why)) corpus.bad(piece.file, piece.line, why);
    all += piece.is_json ? text : piece.data;
    if (piece.ends_document) all += '\n';
  }
  all.resize(std::min(all.size(), max_text));
  all.resize(utf8_valid_prefix(all));
  return all;
}

int needle(const Options& options) {
  const NeedleOptions& o = options.needle;
  if (o.questions > o.needles) fail_usage("--questions {}: there are {} needles", o.questions, o.needles);
  if (o.text_bytes() < o.length / 2)
    fail_usage("--length {}: {} needles and {} questions leave {} bytes for the text, less than half", o.length,
               o.needles, o.questions, o.text_bytes());
  std::string book = read_text(options.text, static_cast<std::size_t>(options.max_text)), val_book;
  if (options.val_text.empty()) {
    std::size_t cut = book.size() - book.size() / 10;
    while (cut < book.size() && continues(book[cut])) ++cut;
    val_book = book.substr(cut);
    book.resize(cut);
  } else {
    val_book = read_text(options.val_text, static_cast<std::size_t>(options.max_text));
  }
  for (const auto& [text, name] : {std::pair(&book, "training"), std::pair(&val_book, "validation")}) {
    if (std::ssize(*text) < o.text_bytes())
      fail_usage("--text: {} bytes are left for {}, but a document takes {}: give more text, or --val-text",
                 text->size(), name, o.text_bytes());
  }
  Task task = bytes_task(o.length);
  if (o.depths > 1) task.bins.clear();
  for (std::int64_t i = 0; i < o.depths && o.depths > 1; ++i)
    task.bins.push_back(fmt::format("_depth{:02}", 100 * i / o.depths));
  task.make = [&](Draws& draws, std::int64_t bin) {
    return make_needle(draws, bin, o, bin == kTraining ? book : val_book);
  };
  return make(task, options);
}

void add_common(CLI::App& task, Options& options) {
  task.add_option("--out", options.out, "PREFIX of the shards; its folder is made if need be")
      ->required()
      ->transform(cli::home_path());
  task.add_option("--seed", options.seed, "of everything that is drawn")->capture_default_str();
  task.add_option("--documents", options.documents, "to train on")->check(CLI::PositiveNumber)->capture_default_str();
  task.add_option("--val-documents", options.val_documents, "in each validation set; 0: none is written")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  task.add_option("--shard-tokens", options.shard_tokens, "tokens in a shard, at most; a document is never cut")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
}

CLI::Option* add_size(CLI::App& task, const std::string& name, std::int64_t& size, const std::string& meaning) {
  return task.add_option(name, size, meaning)->check(CLI::Range(1, 1 << 24))->capture_default_str();
}

}  // namespace
}  // namespace nsa::data

int main(int argc, char** argv) {
  using namespace nsa::data;
  Options options;
  CLI::App app(
      "Tasks in which far context decides, as token shards PREFIX_train_000000.bin, PREFIX_val_000000.bin, ... with "
      "masks: only the answers count as targets. Example: make_synthetic copy --out data/copy --seed 1 --documents "
      "4000");
  app.require_subcommand(1);
  CLI::App& copies = *app.add_subcommand("copy", "random letters, and the same letters again: the answer");
  add_common(copies, options);
  add_size(copies, "--length", options.copy_length, "letters; a document is twice that and two line ends");

  CLI::App& recall = *app.add_subcommand(
      "mqar", "pairs of key and value, then every key once more among noise: the answer is its value");
  add_common(recall, options);
  MqarOptions& m = options.mqar;
  add_size(recall, "--length", m.length, "tokens in a document");
  add_size(recall, "--pairs", m.pairs, "pairs in a document");
  add_size(recall, "--keys", m.keys, "tokens that are keys");
  add_size(recall, "--values", m.values, "tokens that are values");
  add_size(recall, "--noise", m.noise, "tokens that are neither");
  recall
      .add_option("--power", m.power,
                  "a query stands s slots behind the pairs with probability s^(power-1), as in Zoology with 0.01; 0: "
                  "anywhere")
      ->check(CLI::Range(0.0, 1.0))
      ->capture_default_str();

  CLI::App& needles = *app.add_subcommand(
      "needle", "lines of name and number in the text of books; at the end a question, the answer is the number");
  add_common(needles, options);
  NeedleOptions& n = options.needle;
  needles.add_option("--text", options.text, "files, folders and globs of text: plain or JSONL, also gzip and zstd")
      ->required()
      ->transform(nsa::cli::home_path());
  needles.add_option("--val-text", options.val_text, "the same for validation; default: the last tenth of --text")
      ->transform(nsa::cli::home_path());
  needles.add_option("--max-text", options.max_text, "bytes of text to read, at most")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  add_size(needles, "--length", n.length, "bytes in a document");
  add_size(needles, "--needles", n.needles, "lines in a document");
  add_size(needles, "--questions", n.questions, "of these, how many are asked for");
  needles.add_option("--depths", n.depths, "validation sets: one for each depth at which what is asked for stands")
      ->check(CLI::Range(1, 100))
      ->capture_default_str();

  CLI::App& pairs = *app.add_subcommand(
      "induction", "random letters in which a prefix comes back after a distance: the answer is what followed it");
  add_common(pairs, options);
  InductionOptions& i = options.induction;
  add_size(pairs, "--length", i.length, "letters in a document");
  add_size(pairs, "--pairs", i.pairs, "prefixes in a document");
  add_size(pairs, "--prefix", i.prefix, "letters of a prefix");
  add_size(pairs, "--suffix", i.suffix, "letters that follow it");
  pairs.add_option("--distances", i.distances, "from prefix to prefix, one validation set for each")
      ->delimiter(',')
      ->capture_default_str();
  return run_tool(app, argc, argv, [&] {
    if (copies.parsed()) return copy(options);
    if (recall.parsed()) return mqar(options);
    return needles.parsed() ? needle(options) : induction(options);
  });
}
