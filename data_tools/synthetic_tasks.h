// The tasks of make_synthetic: what a document is, and which of its tokens are answers (docs/synthetic.md). All
// documents of a task have the same length, so that a training sequence of that length is one document.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "core/check.h"
#include "core/rng.h"
#include "data/shard.h"
#include "data/utf8.h"

namespace nsa::data {

/// Random draws one after the other: those of one document.
class Draws {
 public:
  Draws(std::uint64_t seed, const std::string& stream) : rng_(seed, stream) {}
  double uniform() { return rng_.uniform(next_++); }
  /// [0, n)
  std::int64_t below(std::int64_t n) { return static_cast<std::int64_t>(uniform() * static_cast<double>(n)); }
  template <class T>
  void shuffle(std::vector<T>& list) {
    for (std::size_t i = list.size(); i > 1; --i)
      std::swap(list[i - 1], list[static_cast<std::size_t>(below(static_cast<std::int64_t>(i)))]);
  }

 private:
  Rng rng_;
  std::uint64_t next_ = 0;
};

struct Document {
  std::vector<std::int32_t> tokens;
  std::vector<bool> answers;  ///< which of the tokens count

  void add(std::string_view text, bool answer = false) {
    for (const char c : text) add(static_cast<unsigned char>(c), answer);
  }
  void add(std::int32_t token, bool answer = false) {
    tokens.push_back(token);
    answers.push_back(answer);
  }
};

inline constexpr std::int64_t kTraining = -1;  ///< instead of the number of a validation set

struct Task {
  ShardInfo info;                                          ///< tokenizer and vocabulary
  std::int64_t length = 0;                                 ///< tokens in a document
  std::int32_t filler = 0;                                 ///< a token that says nothing
  std::vector<std::string> bins{""};                       ///< validation sets, by what is added to their names
  std::function<Document(Draws&, std::int64_t bin)> make;  ///< bin: of bins, or kTraining
};

inline char letter(Draws& draws) { return static_cast<char>('a' + draws.below(26)); }
inline std::string letters(Draws& draws, std::int64_t n) {
  std::string text(static_cast<std::size_t>(n), '\0');
  for (char& c : text) c = letter(draws);
  return text;
}

// ---- copy: LETTERS \n LETTERS \n; the second LETTERS are the answers
inline Document make_copy(Draws& draws, std::int64_t length) {
  const std::string text = letters(draws, length);
  Document document;
  document.add(text + "\n");
  document.add(text, true);
  document.add("\n");
  return document;
}

// ---- mqar: pairs of a key and its value, then every key once more among noise, followed by its value, the answer
struct MqarOptions {
  std::int64_t length = 2048, pairs = 64, keys = 256, values = 256, noise = 64;
  double power = 0;  ///< queries at slots s = 1, 2, ... behind the pairs with probability s^(power - 1); 0: uniform

  std::int64_t slots() const { return (length - 2 * pairs) / 2; }
};

inline Document make_mqar(Draws& draws, const MqarOptions& o) {
  std::vector<std::int32_t> keys(static_cast<std::size_t>(o.keys));
  for (std::size_t i = 0; i < keys.size(); ++i)
    keys[i] = static_cast<std::int32_t>(o.noise) + static_cast<std::int32_t>(i);
  draws.shuffle(keys);
  keys.resize(static_cast<std::size_t>(o.pairs));
  std::vector<std::int32_t> values;
  Document document;
  for (const std::int32_t key : keys) {
    values.push_back(static_cast<std::int32_t>(o.noise + o.keys + draws.below(o.values)));
    document.add(key);
    document.add(values.back());
  }
  while (static_cast<std::int64_t>(document.tokens.size()) < o.length)
    document.add(static_cast<std::int32_t>(draws.below(o.noise)));
  // Weighted, without replacement: the slots with the earliest exponential clocks (Efraimidis and Spirakis).
  std::vector<std::pair<double, std::int64_t>> clocks;
  for (std::int64_t slot = 0; slot < o.slots(); ++slot) {
    const double weight = o.power > 0 ? std::pow(static_cast<double>(slot + 1), o.power - 1) : 1;
    clocks.emplace_back(-std::log(1 - draws.uniform()) / weight, slot);
  }
  std::partial_sort(clocks.begin(), clocks.begin() + o.pairs, clocks.end());
  std::vector<std::size_t> order(keys.size());
  for (std::size_t i = 0; i < order.size(); ++i) order[i] = i;
  draws.shuffle(order);  // the earliest clocks are the nearest slots
  for (std::size_t i = 0; i < order.size(); ++i) {
    const auto at = static_cast<std::size_t>(2 * o.pairs + 2 * clocks[i].second);
    document.tokens[at] = keys[order[i]];
    document.tokens[at + 1] = values[order[i]];
    document.answers[at + 1] = true;
  }
  return document;
}

// ---- induction: among random letters, PREFIX SUFFIX, and after a distance PREFIX SUFFIX again; the second SUFFIX is
// the answer
struct InductionOptions {
  std::int64_t length = 2048, pairs = 4, prefix = 8, suffix = 4;
  std::vector<std::int64_t> distances{16, 64, 256, 1024};  ///< from PREFIX to PREFIX

  std::int64_t width() const { return prefix + suffix; }
};

/// bin: which distance; kTraining: any of them for each pair.
inline Document make_induction(Draws& draws, std::int64_t bin, const InductionOptions& o) {
  constexpr int kTries = 10000;
  std::string text = letters(draws, o.length);
  std::vector<bool> answers(text.size()), taken(text.size());
  const auto is_free = [&](std::int64_t at) {
    const auto begin = taken.begin() + at;
    return std::find(begin, begin + o.width(), true) == begin + o.width();
  };
  for (std::int64_t pair = 0, tries = 0; pair < o.pairs; ++tries) {
    NSA_CHECK(tries < kTries, "induction: {} pairs of {} letters do not fit into {}", o.pairs, 2 * o.width(), o.length);
    const auto choice = bin != kTraining ? bin : draws.below(static_cast<std::int64_t>(o.distances.size()));
    const std::int64_t distance = o.distances[static_cast<std::size_t>(choice)];
    const std::int64_t first = draws.below(o.length - distance - o.width() + 1), second = first + distance;
    if (!is_free(first) || !is_free(second)) continue;
    for (std::int64_t i = 0; i < o.width(); ++i) {
      const auto from = static_cast<std::size_t>(first + i), to = static_cast<std::size_t>(second + i);
      text[to] = text[from];
      taken[from] = taken[to] = true;
      answers[to] = i >= o.prefix;
    }
    ++pair;
  }
  Document document;
  for (std::size_t i = 0; i < text.size(); ++i) document.add(static_cast<unsigned char>(text[i]), answers[i]);
  return document;
}

// ---- needle: book text with lines "The magic number of NAME is 48213." at random depths, and at the end questions;
// the digits after them are the answers
struct Needle {
  std::string name = "......", value = ".....";
  std::int64_t at = 0;  ///< byte of the text before which it stands

  std::string line() const { return fmt::format("\nThe magic number of {} is {}.\n", name, value); }
  std::string question() const { return fmt::format("\nWhat is the magic number of {}? ", name); }
};

struct NeedleOptions {
  std::int64_t length = 4096, needles = 1, questions = 1, depths = 1;

  /// What is left of a document for the book.
  std::int64_t text_bytes() const {
    const Needle any;
    return length - needles * std::ssize(any.line()) - questions * (std::ssize(any.question() + any.value) + 1);
  }
};

inline bool continues(char c) { return utf8_is_continuation(static_cast<unsigned char>(c)); }

/// Three syllables, 6 letters.
inline std::string made_up_name(Draws& draws) {
  constexpr std::string_view consonants = "bdfgklmnprstvz", vowels = "aeiou";
  std::string name;
  for (int i = 0; i < 3; ++i) {
    name += consonants[static_cast<std::size_t>(draws.below(std::ssize(consonants)))];
    name += vowels[static_cast<std::size_t>(draws.below(std::ssize(vowels)))];
  }
  return name;
}

/// n bytes of the book from a random place on; a character torn at either end becomes blanks.
inline std::string stretch_of(std::string_view book, std::int64_t n, Draws& draws) {
  std::string text(
      book.substr(static_cast<std::size_t>(draws.below(std::ssize(book) - n + 1)), static_cast<std::size_t>(n)));
  for (std::size_t i = 0; i < text.size() && continues(text[i]); ++i) text[i] = ' ';
  const std::size_t tail = utf8_unfinished_tail(text);
  text.replace(text.size() - tail, tail, tail, ' ');
  return text;
}

/// The needles asked for are the first ones. bin: the depth at which they stand; kTraining: any.
inline std::vector<Needle> make_needles(Draws& draws, std::int64_t bin, const NeedleOptions& o, std::string_view text) {
  std::vector<Needle> needles;
  std::set<std::string> names;
  for (std::int64_t i = 0; i < o.needles; ++i) {
    Needle needle{made_up_name(draws), fmt::format("{}", 10000 + draws.below(90000)), 0};
    while (!names.insert(needle.name).second) needle.name = made_up_name(draws);
    double depth = draws.uniform();
    if (bin != kTraining && i < o.questions) depth = (static_cast<double>(bin) + depth) / static_cast<double>(o.depths);
    // Between words where there are words.
    const auto wanted = static_cast<std::size_t>(depth * static_cast<double>(text.size()));
    const std::size_t blank = text.find_first_of(" \n", wanted);
    needle.at = static_cast<std::int64_t>(blank == text.npos || blank > wanted + 32 ? wanted : blank);
    while (continues(text[static_cast<std::size_t>(needle.at)])) --needle.at;
    needles.push_back(std::move(needle));
  }
  return needles;
}

inline Document make_needle(Draws& draws, std::int64_t bin, const NeedleOptions& o, std::string_view book) {
  const std::string text = stretch_of(book, o.text_bytes(), draws);
  const std::vector<Needle> needles = make_needles(draws, bin, o, text);
  std::vector<Needle> in_order = needles;
  std::stable_sort(in_order.begin(), in_order.end(), [](const Needle& a, const Needle& b) { return a.at < b.at; });
  Document document;
  std::size_t done = 0;
  for (const Needle& needle : in_order) {
    document.add(std::string_view(text).substr(done, static_cast<std::size_t>(needle.at) - done));
    document.add(needle.line());
    done = static_cast<std::size_t>(needle.at);
  }
  document.add(std::string_view(text).substr(done));
  for (std::int64_t i = 0; i < o.questions; ++i) {
    const Needle& needle = needles[static_cast<std::size_t>(i)];
    document.add(needle.question());
    document.add(needle.value, true);
    document.add("\n");
  }
  return document;
}

}  // namespace nsa::data
