// A look into token shards: layout, counts, side-car, mask, most frequent tokens, text at an offset, and a check of
// every token. Exit 1 when a shard is bad.
#include <algorithm>
#include <cstdio>
#include <map>
#include <optional>

#include "command_line.h"
#include "core/text.h"
#include "data/shard.h"
#include "data/tokenizer.h"

namespace nsa::data {
namespace {

constexpr std::int64_t kBlock = 1 << 16;  // tokens read at once

struct Options {
  std::vector<std::string> shards;
  std::string tokenizer;
  Headerless headerless = Headerless::guess;
  std::int64_t vocab_size = 0, top = 20, offset = 0, count = 256;
};

/// How often each token occurs; reading refuses those >= vocab_size.
std::map<std::int32_t, std::int64_t> histogram_of(const Shard& shard, std::int64_t vocab_size) {
  std::map<std::int32_t, std::int64_t> rare;
  std::vector<std::int64_t> counts(std::min<std::int64_t>(vocab_size, 1 << 20));
  std::vector<std::int32_t> tokens(kBlock);
  for (std::int64_t begin = 0; begin < shard.tokens(); begin += kBlock) {
    const std::int64_t n = std::min(kBlock, shard.tokens() - begin);
    shard.read(begin, n, tokens.data(), vocab_size);
    for (std::int64_t i = 0; i < n; ++i) {
      const std::int32_t token = tokens[static_cast<std::size_t>(i)];
      if (static_cast<std::size_t>(token) < counts.size()) {
        ++counts[static_cast<std::size_t>(token)];
      } else {
        ++rare[token];
      }
    }
  }
  for (std::size_t token = 0; token < counts.size(); ++token) {
    if (counts[token] > 0) rare[static_cast<std::int32_t>(token)] = counts[token];
  }
  return rare;
}

/// One line: control characters as escapes, other text as it is.
std::string printable(const std::string& text) {
  std::string out;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '\n') {
      out += "\\n";
    } else if (c == '\t') {
      out += "\\t";
    } else if (byte < 0x20 || byte == 0x7F) {
      out += fmt::format("\\x{:02x}", byte);
    } else {
      out += c;
    }
  }
  return out;
}

void print_histogram(const Shard& shard, const std::map<std::int32_t, std::int64_t>& counts,
                     const std::optional<Tokenizer>& tokenizer, std::int64_t top) {
  std::vector<std::pair<std::int32_t, std::int64_t>> order(counts.begin(), counts.end());
  std::stable_sort(order.begin(), order.end(), [](const auto& a, const auto& b) { return a.second > b.second; });
  order.resize(std::min(order.size(), static_cast<std::size_t>(top)));
  Table table{.title = fmt::format("{} different tokens, the most frequent:",
                                   grouped(static_cast<std::int64_t>(counts.size()))),
              .head = {"token", "count", "share"},
              .rows = {}};
  if (tokenizer) table.head.push_back("text");
  for (const auto& [token, count] : order) {
    table.rows.push_back({fmt::format("{}", token), grouped(count),
                          percent(static_cast<double>(count) / static_cast<double>(shard.tokens()), 2)});
    if (tokenizer)
      table.rows.back().push_back(token == tokenizer->eot() ? "end of text"
                                                            : "\"" + printable(tokenizer->decode({token})) + "\"");
  }
  if (!order.empty()) std::printf("%s", to_text(table).c_str());
}

/// The tokens as text, or as numbers without a tokenizer; what counts as a target between [[ and ]].
std::string shown(const std::vector<std::int32_t>& tokens, const std::vector<bool>& counts,
                  const std::optional<Tokenizer>& tokenizer) {
  std::string text;
  bool open = false;
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    if (counts[i] != open) text += open ? "]]" : "[[";
    open = counts[i];
    text += !tokenizer                      ? fmt::format(" {}", tokens[i])
            : tokens[i] == tokenizer->eot() ? "\n---- end of text ----\n"
                                            : tokenizer->decode({tokens[i]});
  }
  return open ? text + "]]" : text;
}

void print_text(const Shard& shard, const Options& options, std::int64_t vocab_size,
                const std::optional<Tokenizer>& tokenizer) {
  NSA_CHECK(options.offset <= shard.tokens(), "--offset {}: {} has {} tokens", options.offset, shard.path(),
            shard.tokens());
  std::vector<std::int32_t> tokens(static_cast<std::size_t>(std::min(options.count, shard.tokens() - options.offset)));
  shard.read(options.offset, static_cast<std::int64_t>(tokens.size()), tokens.data(), vocab_size);
  if (tokens.empty()) return;
  std::vector<bool> counts(tokens.size());
  if (shard.mask()) {
    std::vector<std::int32_t> targets(tokens.size());
    shard.mask()->apply(options.offset, static_cast<std::int64_t>(targets.size()), targets.data());
    for (std::size_t i = 0; i < targets.size(); ++i) counts[i] = targets[i] == 0;
  }
  std::printf("tokens %s to %s%s:\n%s\n", grouped(options.offset).c_str(),
              grouped(options.offset + static_cast<std::int64_t>(tokens.size()) - 1).c_str(),
              shard.mask() ? ", those that count as targets between [[ and ]]" : "",
              shown(tokens, counts, tokenizer).c_str());
  if (!tokenizer) std::printf("(no tokenizer at hand: --tokenizer shows text)\n");
}

void print_mask(const Shard& shard) {
  if (!shard.mask()) return;
  shard.mask()->check();
  const std::int64_t counted = shard.mask()->counted();
  std::printf("mask: %s of %s tokens count as targets (%s)\n", grouped(counted).c_str(),
              grouped(shard.tokens()).c_str(),
              percent(static_cast<double>(counted) / static_cast<double>(shard.tokens()), 2).c_str());
}

/// The tokenizer asked for, or the side-car's when it is at hand and the same.
std::optional<Tokenizer> tokenizer_for(const Shard& shard, const Options& options) {
  if (!options.tokenizer.empty()) {
    Tokenizer tokenizer = Tokenizer::open(options.tokenizer);
    const std::uint64_t hash = shard.info() ? shard.info()->tokenizer_hash : 0;
    NSA_CHECK(hash == 0 || hash == tokenizer.hash(),
              "shard {}: made with another tokenizer ({}, {:016x}) than {} ({:016x})", shard.path(),
              shard.info()->tokenizer, hash, options.tokenizer, tokenizer.hash());
    return tokenizer;
  }
  if (!shard.info() || shard.info()->tokenizer.empty()) return std::nullopt;
  try {
    Tokenizer tokenizer = Tokenizer::open(shard.info()->tokenizer);
    if (tokenizer.hash() == shard.info()->tokenizer_hash) return tokenizer;
  } catch (const Error&) {  // the path in a side-car may be from another machine or folder
  }
  return std::nullopt;
}

void inspect_one(const std::string& path, const Options& options) {
  const Shard shard(path, options.headerless);
  std::printf("%s: %s, %s tokens, fingerprint %016llx\n", path.c_str(), name_of(shard.format()),
              grouped(shard.tokens()).c_str(), static_cast<unsigned long long>(shard.fingerprint()));
  if (shard.info()) {
    const ShardInfo& info = *shard.info();
    std::printf(
        "says of itself: tokenizer %s (%016llx), vocabulary %s, end of text %s, %s documents, %s bytes of text\n",
        info.tokenizer.empty() ? "unknown" : info.tokenizer.c_str(),
        static_cast<unsigned long long>(info.tokenizer_hash), grouped(info.vocab_size).c_str(),
        info.eot < 0 ? "none" : fmt::format("{}", info.eot).c_str(), grouped(info.documents).c_str(),
        grouped(info.text_bytes).c_str());
  } else {
    std::printf("no side-car\n");
  }
  print_mask(shard);
  const std::optional<Tokenizer> tokenizer = tokenizer_for(shard, options);
  std::int64_t vocab_size = options.vocab_size;
  if (vocab_size == 0 && tokenizer) vocab_size = tokenizer->vocab_size();
  if (vocab_size == 0 && shard.info()) vocab_size = shard.info()->vocab_size;
  const bool known = vocab_size > 0;
  shard.check_guess(known ? vocab_size : 65536);
  if (!known) vocab_size = std::int64_t{1} << 31;
  const auto counts = histogram_of(shard, vocab_size);
  print_histogram(shard, counts, tokenizer, options.top);
  print_text(shard, options, vocab_size, tokenizer);
  const std::int64_t highest = counts.empty() ? -1 : counts.rbegin()->first;
  if (shard.info() && shard.info()->eot >= 0) {
    const auto eot = counts.find(static_cast<std::int32_t>(shard.info()->eot));
    const std::int64_t found = eot == counts.end() ? 0 : eot->second;
    NSA_CHECK(found == shard.info()->documents, "shard {}: {} end-of-text tokens, but its side-car says {} documents",
              path, found, shard.info()->documents);
  }
  if (known) {
    std::printf("ok: every token is below %s (the highest is %lld)\n", grouped(vocab_size).c_str(),
                static_cast<long long>(highest));
  } else {
    std::printf(
        "ok as far as can be told: the vocabulary is unknown (--vocab-size or --tokenizer); the highest token is "
        "%lld\n",
        static_cast<long long>(highest));
  }
}

int inspect(const Options& options) {
  int status = static_cast<int>(Exit::ok);
  for (const std::string& path : expand_globs(options.shards)) {
    const Exit one = guarded([&] {  // a bad shard does not hide the others
      inspect_one(path, options);
      return Exit::ok;
    });
    std::fflush(stdout);
    if (one != Exit::ok) status = static_cast<int>(one);
  }
  if (status == static_cast<int>(Exit::ok)) flush_results();
  return status;
}

}  // namespace
}  // namespace nsa::data

int main(int argc, char** argv) {
  nsa::data::Options options;
  CLI::App app(
      "A look into token shards (llm.c uint16 and uint32, headerless uint16 and uint32, BIN.TOK); exit 1 when one is "
      "bad");
  app.add_option("shards", options.shards, "shards or globs of shards")->required()->transform(nsa::cli::home_path());
  app.add_option("--tokenizer", options.tokenizer,
                 "\"bytes\" or a model, to show text; default: the side-car's, if it is at hand")
      ->transform(nsa::cli::home_path());
  app.add_option(
         "--headerless", options.headerless,
         "what a shard without a header is; auto: uint16 if it looks like tokens of the vocabulary, else refused")
      ->transform(CLI::CheckedTransformer(
          std::map<std::string, nsa::data::Headerless>{{"auto", nsa::data::Headerless::guess},
                                                       {"uint16", nsa::data::Headerless::uint16},
                                                       {"uint32", nsa::data::Headerless::uint32}}))
      ->default_str("auto");
  app.add_option("--vocab-size", options.vocab_size,
                 "every token must be below this; default: the tokenizer's or the side-car's")
      ->check(CLI::Range(0, 1 << 30));
  app.add_option("--top", options.top, "how many of the most frequent tokens to list")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  app.add_option("--offset", options.offset, "show what begins at this token")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  app.add_option("--count", options.count, "how many tokens to show there")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  return nsa::data::run_tool(app, argc, argv, [&] { return nsa::data::inspect(options); });
}
