// Text -> token shards. Reading, decompression and line splitting run in one thread; parsing of JSON and encoding in
// all others; writing is in the order of the input, so the shards do not depend on the number of threads. A huge
// document is cut where no piece of the vocabulary can join, which changes no token.
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <exception>
#include <future>
#include <optional>

#include "command_line.h"
#include "core/device.h"
#include "core/parallel.h"
#include "core/rng.h"
#include "core/text.h"
#include "data/json_line.h"
#include "data/shard_writer.h"
#include "data/tokenizer.h"
#include "core/signals.h"

namespace nsa::data {
namespace {

constexpr std::size_t kBatchBytesPerThread = 4 << 20;
constexpr std::size_t kStretchBytes = 1 << 17;  // of one document, encoded by one thread

struct Options {
  CorpusArguments corpus;
  std::string tokenizer, out;
  double val_fraction = 0;
  std::int64_t shard_tokens = 100'000'000, seed = 1;
  int threads = 0;
};

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

/// A bar on a terminal, a line every 10 s otherwise; both on stderr.
class Progress {
 public:
  explicit Progress(std::int64_t total) : total_(static_cast<double>(std::max<std::int64_t>(total, 1))) {}

  void update(std::int64_t done, std::int64_t text_bytes, std::int64_t tokens) {
    const double seconds = seconds_since(start_);
    if (seconds < next_) return;
    next_ = seconds + (terminal_ ? 0.2 : 10);
    const double share = std::clamp(static_cast<double>(done) / total_, 0.0, 1.0);
    const std::string rate = fmt::format(
        "{:>5}  {}  {}/s  {} tok/s  ETA {}", percent(share, 0), human_bytes(static_cast<double>(text_bytes)),
        human_bytes(static_cast<double>(text_bytes) / seconds), human_count(static_cast<double>(tokens) / seconds),
        share > 0 ? human_duration(seconds / share - seconds) : "?");
    const auto full = static_cast<std::size_t>(30 * share);
    if (terminal_) {
      std::fprintf(stderr, "\r[%s%s] %s\x1b[K", std::string(full, '#').c_str(), std::string(30 - full, '.').c_str(),
                   rate.c_str());
      drawn_ = true;
    } else {
      std::fprintf(stderr, "tokenize: %s\n", rate.c_str());
    }
    std::fflush(stderr);
  }
  double seconds() const { return seconds_since(start_); }
  /// Clears the bar, so that the next line (summary or error) stands alone.
  ~Progress() { clear(); }
  void clear() {
    if (std::exchange(drawn_, false)) std::fprintf(stderr, "\r\x1b[K");
  }

 private:
  double total_;
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
  bool terminal_ = takes_escape_codes(STDERR_FILENO), drawn_ = false;
  double next_ = terminal_ ? 0.2 : 10;
};

/// One piece of the corpus on its way to the shards.
struct Work {
  CorpusPiece piece;
  std::string why;                                // not empty: a bad JSONL line
  std::vector<std::vector<std::int32_t>> tokens;  // of its stretches, in order
};

struct Batch {
  std::vector<Work> works;
  std::int64_t bytes_read = 0;  // of the corpus, when the batch was complete
};

Batch read_batch(Corpus& corpus, std::size_t bytes) {
  Batch batch;
  for (std::size_t have = 0; have < bytes;) {
    Work work;
    if (!corpus.next(work.piece)) break;
    have += work.piece.data.size() + sizeof(Work);
    batch.works.push_back(std::move(work));
  }
  batch.bytes_read = corpus.bytes_read();
  return batch;
}

struct Stretch {
  std::string_view text;
  std::vector<std::int32_t>* tokens;
};

/// Cuts the texts of a batch into stretches that can be encoded apart.
std::vector<Stretch> stretches_of(const Tokenizer& tokenizer, Batch& batch) {
  std::vector<Stretch> all;
  for (Work& work : batch.works) {
    if (!work.why.empty()) continue;
    std::vector<std::string_view> parts;
    for (std::string_view rest = work.piece.data; !rest.empty();) {
      const std::size_t cut = rest.size() > kStretchBytes ? tokenizer.cut(rest, kStretchBytes) : 0;
      parts.push_back(rest.substr(0, cut == 0 ? rest.size() : cut));
      rest.remove_prefix(parts.back().size());
    }
    work.tokens.resize(parts.size());
    for (std::size_t i = 0; i < parts.size(); ++i) all.push_back({parts[i], &work.tokens[i]});
  }
  return all;
}

void encode_batch(const Tokenizer& tokenizer, const std::string& text_field, int threads, Batch& batch) {
  std::vector<std::exception_ptr> errors(static_cast<std::size_t>(threads));
  const auto guarded = [&](int thread, auto&& body) {  // an exception must not leave a parallel loop
    try {
      body();
    } catch (...) {
      errors[static_cast<std::size_t>(thread)] = std::current_exception();
    }
  };
  parallel_for(threads, static_cast<std::int64_t>(batch.works.size()), [&](std::int64_t i, int thread) {
    guarded(thread, [&] {
      Work& work = batch.works[static_cast<std::size_t>(i)];
      if (!work.piece.is_json) return;
      std::string text;
      if (text_of_line(work.piece.data, text_field, text, work.why)) work.piece.data.swap(text);
    });
  });
  const std::vector<Stretch> stretches = stretches_of(tokenizer, batch);
  parallel_for(threads, static_cast<std::int64_t>(stretches.size()), [&](std::int64_t i, int thread) {
    guarded(thread, [&] {
      const Stretch& stretch = stretches[static_cast<std::size_t>(i)];
      stretch.tokens->reserve(stretch.text.size() / 3);
      tokenizer.encode(stretch.text, *stretch.tokens);
    });
  });
  for (const std::exception_ptr& error : errors) {
    if (error) std::rethrow_exception(error);
  }
}

/// The two sides of the split. A document's side depends on its number and the seed alone.
class Split {
 public:
  Split(const Options& options, const Tokenizer& tokenizer)
      : val_fraction_(options.val_fraction), draw_(static_cast<std::uint64_t>(options.seed), "val split") {
    const ShardInfo info{.tokenizer = options.tokenizer,
                         .tokenizer_hash = tokenizer.hash(),
                         .vocab_size = tokenizer.vocab_size(),
                         .eot = tokenizer.eot()};
    train_.emplace(options.out + "_train", info, options.shard_tokens);
    if (val_fraction_ > 0) val_.emplace(options.out + "_val", info, options.shard_tokens);
    if (!train_->warning().empty()) std::fprintf(stderr, "tokenize: warning: %s\n", train_->warning().c_str());
  }

  void write(Corpus& corpus, const Batch& batch, TakenTable& taken) {
    for (const Work& work : batch.works) {
      if (!open_) {
        side_ = val_ && draw_.uniform(number_++) < val_fraction_ ? &*val_ : &*train_;
      }
      if (!work.why.empty()) {
        corpus.bad(work.piece.file, work.piece.line, work.why);
        continue;
      }
      taken.count(work.piece.file, work.piece.data.size(), work.piece.ends_document);
      for (std::size_t i = 0; i < work.tokens.size(); ++i)
        side_->append(work.tokens[i], i == 0 ? static_cast<std::int64_t>(work.piece.data.size()) : 0);
      open_ = open_ || !work.tokens.empty();
      if (!open_ || !work.piece.ends_document) continue;  // a document without text leaves no trace
      side_->end_document();
      open_ = false;
    }
  }

  void finish() {
    NSA_CHECK(documents() > 0, "no document with text in the input: nothing was written");
    const char* hint =
        "documents go to one side whole: give more documents, another --seed or --val-fraction, or "
        "--document-separator; or tokenize a file of its own for "
        "validation";
    NSA_CHECK(!val_ || val_->documents() > 0, "--val-fraction {}: none of {} documents fell to validation: {}",
              val_fraction_, documents(), hint);
    NSA_CHECK(train_->documents() > 0, "--val-fraction {}: none of {} documents was left for training: {}",
              val_fraction_, documents(), hint);
    train_->finish();
    if (val_) val_->finish();
  }

  std::int64_t documents() const { return train_->documents() + (val_ ? val_->documents() : 0); }
  std::int64_t tokens() const { return train_->tokens() + (val_ ? val_->tokens() : 0); }
  std::int64_t text_bytes() const { return train_->text_bytes() + (val_ ? val_->text_bytes() : 0); }

  void print() const {
    const auto line = [](const char* name, const ShardWriter& writer) {
      std::printf("%s: %s tokens, %s documents, %s shard%s: %s%s\n", name, grouped(writer.tokens()).c_str(),
                  grouped(writer.documents()).c_str(),
                  grouped(static_cast<std::int64_t>(writer.files().size())).c_str(),
                  writer.files().size() == 1 ? "" : "s", writer.files().front().c_str(),
                  writer.files().size() == 1 ? "" : " ...");
    };
    line("train", *train_);
    if (val_) line("val  ", *val_);
  }

 private:
  double val_fraction_;
  Rng draw_;
  std::optional<ShardWriter> train_, val_;
  ShardWriter* side_ = nullptr;  // of the document being written
  bool open_ = false;            // some of it has been written
  std::uint64_t number_ = 0;     // of documents met
};

int tokenize(const Options& options) {
  const StopSignals stop;
  const Tokenizer tokenizer = Tokenizer::open(options.tokenizer);
  CorpusOptions corpus_options = options.corpus.corpus_options();
  corpus_options.cut = [&](std::string_view text, std::size_t at) { return tokenizer.cut(text, at); };
  Corpus corpus = options.corpus.open(corpus_options);
  TakenTable taken(corpus);
  Split split(options, tokenizer);
  const int threads = options.threads > 0 ? options.threads : available_cores();
  const std::size_t batch_bytes = kBatchBytesPerThread * static_cast<std::size_t>(threads);
  Progress progress(corpus.total_bytes());
  Batch batch = read_batch(corpus, batch_bytes);
  while (!batch.works.empty()) {
    NSA_CHECK(!stop.requested(), "stopped by {}: nothing was written", stop.name());
    auto next = std::async(threads > 1 ? std::launch::async : std::launch::deferred,
                           [&] { return read_batch(corpus, batch_bytes); });
    encode_batch(tokenizer, corpus_options.text_field, threads, batch);
    next.wait();  // from here on the corpus is this thread's; get() only after write(), so that of two bad lines the
                  // first is reported
    split.write(corpus, batch, taken);
    progress.update(batch.bytes_read, split.text_bytes(), split.tokens());
    batch = next.get();
  }
  NSA_CHECK(!stop.requested(), "stopped by {}: nothing was written", stop.name());
  split.finish();
  progress.clear();
  std::printf("%s", taken.text().c_str());
  split.print();
  const double seconds = progress.seconds(), bytes = static_cast<double>(split.text_bytes());
  std::printf("%s documents, %s bytes of text, %s tokens (%.3f bytes per token), %.1f s, %.1f MB/s with %d thread%s\n",
              grouped(split.documents()).c_str(), grouped(split.text_bytes()).c_str(), grouped(split.tokens()).c_str(),
              bytes / static_cast<double>(split.tokens()), seconds, bytes / 1e6 / seconds, threads,
              threads == 1 ? "" : "s");
  if (corpus.skipped() > 0)
    std::printf("skipped %s bad lines, the first: %s\n", grouped(corpus.skipped()).c_str(),
                corpus.first_skipped().c_str());
  return 0;
}

}  // namespace
}  // namespace nsa::data

int main(int argc, char** argv) {
  nsa::data::Options options;
  CLI::App app(
      "Text into token shards: PREFIX_train_000000.bin, ... (and PREFIX_val_000000.bin, ...), each with a side-car "
      ".json");
  options.corpus.add_to(app);
  app.add_option("--tokenizer", options.tokenizer, "\"bytes\", or a sentencepiece model made by train_tokenizer")
      ->required()
      ->transform(nsa::cli::home_path());
  app.add_option("--out", options.out, "PREFIX of the shards; its folder is made if need be")
      ->required()
      ->transform(nsa::cli::home_path());
  app.add_option("--val-fraction", options.val_fraction, "share of the documents that goes to validation")
      ->check(CLI::Range(0.0, 1.0))
      ->capture_default_str();
  app.add_option("--seed", options.seed, "of the draw between training and validation")->capture_default_str();
  app.add_option("--shard-tokens", options.shard_tokens, "tokens in a shard, at most")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_option("--threads", options.threads, "0: all cores; the shards do not depend on it")
      ->check(CLI::Range(0, 4096))
      ->capture_default_str();
  return nsa::data::run_tool(app, argc, argv, [&] { return nsa::data::tokenize(options); });
}
