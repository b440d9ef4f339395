#include "data/tokenizer.h"

#include <sentencepiece_processor.h>

#include <thread>

#include "core/rng.h"
#include "data/utf8.h"
#include "tools.h"

using namespace nsa;
using namespace nsa::data;

namespace {

/// Text that normalisation, marks, special tokens and whitespace rules have broken elsewhere.
std::vector<std::string> adversarial() {
  return {"",
          " ",
          "   ",
          " leading",
          "trailing ",
          "a  b   c    d",
          "\n",
          "\n\n\n",
          "\t",
          "\t\t x\t",
          "line\r\nline\r\n\r\n",
          "\r",
          " \n \n ",
          std::string("nul\0in the middle", 17),
          std::string(1, '\0'),
          "\x01\x02\x1b[31m\x7f",
          "\xE2\x96\x81",
          "a\xE2\x96\x81"
          "b \xE2\x96\x81 \xE2\x96\x81\xE2\x96\x81",
          "\xE2\x96\x85 the other mark",
          "\xE2\x96\x82\xE2\x96\x80 their neighbours",
          "<s>",
          "</s><s><unk><pad><eot><|endoftext|>",
          "<0x0A><0x41> <0xFF",
          "\xEF\xBB\xBF"
          "byte order mark",
          "\xEF\xAC\x81 \xE2\x91\xA0 \xC2\xBD \xC2\xA0 \xE3\x80\x80",
          "e\xCC\x81 \xC3\xA9 \xE2\x80\x8B \xEF\xBF\xBD",
          "\xF0\x9F\x91\xA9\xE2\x80\x8D\xF0\x9F\x91\xA7 \xF4\x8F\xBF\xBF \xEF\xBF\xBF",
          "\xE6\x97\xA5\xE6\x9C\xAC\xE8\xAA\x9E\xE3\x81\xAE\xE6\x96\x87",
          std::string(5000, 'a'),
          std::string(5000, ' '),
          std::string(3000, '\n') + "x",
          training_text()};
}

/// Random text over an alphabet that makes merges, spaces and marks meet in every way.
std::string random_text(std::uint64_t seed, std::size_t pieces) {
  static const std::vector<std::string> kParts{" ",
                                               "  ",
                                               "the",
                                               "The",
                                               "\n",
                                               "\t",
                                               "fox",
                                               "int",
                                               "i",
                                               "0",
                                               "12",
                                               "<s>",
                                               "<0x0A>",
                                               "\xE2\x96\x81",
                                               "\xC3\xBC",
                                               "\xE6\x97\xA5",
                                               "quick ",
                                               ".",
                                               ",\n",
                                               "\r\n",
                                               "\xF0\x9F\x99\x82",
                                               "e",
                                               "\xE2\x96\x85"};
  const Rng rng(seed, "random text");
  std::string text;
  for (std::size_t i = 0; i < pieces; ++i) text += kParts[rng.bits(i) % kParts.size()];
  return text;
}

}  // namespace

TEST_CASE("bytes: every byte is a token", "[tokenizer]") {
  const Tokenizer tokenizer = Tokenizer::open("bytes");
  REQUIRE(tokenizer.vocab_size() == 257);
  REQUIRE(tokenizer.eot() == 256);
  std::string all;
  for (int byte = 0; byte < 256; ++byte) all += static_cast<char>(byte);
  const auto tokens = tokenizer.encode(all);
  REQUIRE(tokens.size() == 256);
  REQUIRE(tokens[0] == 0);
  REQUIRE(tokens[255] == 255);
  REQUIRE(tokenizer.decode(tokens) == all);
  REQUIRE(tokenizer.decode({65, 256, 66}) == "AB");
  REQUIRE(contains(error_of([&] { tokenizer.decode({257}); }), "token 257 is outside the vocabulary of 257"));
  REQUIRE(contains(error_of([&] { tokenizer.decode({-1}); }), "token -1"));
}

TEST_CASE("a trained model gives every text back", "[tokenizer]") {
  const Tokenizer tokenizer = Tokenizer::open(small_model());
  REQUIRE(tokenizer.vocab_size() == 400);
  REQUIRE(tokenizer.hash() != Tokenizer::open("bytes").hash());
  REQUIRE(tokenizer.encode(training_text()).size() < training_text().size() / 2);  // it learned something
  for (const std::string& text : adversarial()) {
    const auto tokens = tokenizer.encode(text);
    CAPTURE(text.substr(0, 60), tokens.size());
    REQUIRE(tokenizer.decode(tokens) == text);
    REQUIRE(std::count(tokens.begin(), tokens.end(), tokenizer.eot()) == 0);  // no text produces it
    REQUIRE(std::count(tokens.begin(), tokens.end(), 0) == 0);                // nor the unknown piece
  }
  for (std::uint64_t seed = 0; seed < 200; ++seed) {
    const std::string text = random_text(seed, 60);
    REQUIRE(tokenizer.decode(tokenizer.encode(text)) == text);
  }
  REQUIRE(tokenizer.decode({tokenizer.eot()}).empty());
}

TEST_CASE("bytes that are not UTF-8 survive a trained model", "[tokenizer]") {
  const Tokenizer tokenizer = Tokenizer::open(small_model());
  std::string text = "the ";
  for (int byte = 255; byte >= 0; --byte) text += static_cast<char>(byte);
  text += " fox \xE2\x96";
  REQUIRE(tokenizer.decode(tokenizer.encode(text)) == text);
}

TEST_CASE("tokens are the library's", "[tokenizer]") {
  const Tokenizer tokenizer = Tokenizer::open(small_model());
  sentencepiece::SentencePieceProcessor library;
  REQUIRE(library.Load(small_model()).ok());
  const auto same = [&](const std::string& text) {
    std::vector<int> expected;
    REQUIRE(library.Encode(text, &expected).ok());
    const auto got = tokenizer.encode(text);
    CAPTURE(text.substr(0, 200));
    REQUIRE(std::vector<int>(got.begin(), got.end()) == expected);
    std::string decoded;
    REQUIRE(library.Decode(expected, &decoded).ok());
    REQUIRE(decoded == text);
  };
  for (const std::string& text : adversarial()) {
    if (!contains(text, "\xE2\x96\x81")) same(text);  // for that character the library gives a space back
  }
  for (std::uint64_t seed = 1000; seed < 1400; ++seed) {
    std::string text = random_text(seed, 80);
    for (std::size_t at; (at = text.find("\xE2\x96\x81")) != std::string::npos;) text.replace(at, 3, "fox");
    same(text);
  }
}

TEST_CASE("a cut changes no token", "[tokenizer]") {
  for (const std::string& spec : {std::string("bytes"), small_model()}) {
    const Tokenizer tokenizer = Tokenizer::open(spec);
    REQUIRE(tokenizer.cut("", 5) == 0);
    REQUIRE(tokenizer.cut("a", 5) == 0);
    std::int64_t cuts = 0;
    for (std::uint64_t seed = 0; seed < 40; ++seed) {
      const std::string text = random_text(seed, 40);
      const auto whole = tokenizer.encode(text);
      for (std::size_t at = 1; at <= text.size(); ++at) {
        const std::size_t p = tokenizer.cut(text, at);
        REQUIRE(p <= at);
        REQUIRE(p < text.size());
        if (p != at) continue;
        ++cuts;
        std::vector<std::int32_t> parts;
        tokenizer.encode(std::string_view(text).substr(0, p), parts);
        tokenizer.encode(std::string_view(text).substr(p), parts);
        REQUIRE(parts == whole);
      }
    }
    REQUIRE(cuts > 500);  // there are places to cut
  }
}

TEST_CASE("encoding is thread-safe", "[tokenizer]") {
  const Tokenizer tokenizer = Tokenizer::open(small_model());
  const std::string text = training_text();
  const auto expected = tokenizer.encode(text);
  std::vector<std::vector<std::int32_t>> got(4);
  std::vector<std::thread> threads;
  for (auto& mine : got) threads.emplace_back([&] { tokenizer.encode(text, mine); });
  for (auto& thread : threads) thread.join();
  for (const auto& mine : got) REQUIRE(mine == expected);
}

TEST_CASE("streaming keeps unfinished characters back", "[tokenizer]") {
  for (const std::string& spec : {std::string("bytes"), small_model()}) {
    const Tokenizer tokenizer = Tokenizer::open(spec);
    for (const std::string& text : adversarial()) {
      StreamDecoder stream(tokenizer);
      std::string all;
      for (std::int32_t token : tokenizer.encode(text)) {
        const std::string now = stream.push(token);
        REQUIRE(utf8_valid_prefix(now) == now.size());
        all += now;
      }
      REQUIRE(all + stream.finish() == text);
    }
  }
  const Tokenizer bytes = Tokenizer::open("bytes");
  StreamDecoder stream(bytes);
  REQUIRE(stream.push(0xE6).empty());
  REQUIRE(stream.push(0x97).empty());
  REQUIRE(stream.push(0xA5) == "\xE6\x97\xA5");
  REQUIRE(stream.push(0xF0).empty());
  REQUIRE(stream.push('a') ==
          "\xF0"
          "a");  // it never was a character: nothing is held back for ever
  REQUIRE(stream.push(0xC3).empty());
  REQUIRE(stream.finish() == "\xC3");
}

TEST_CASE("what is no tokenizer is refused", "[tokenizer]") {
  const TempDir folder;
  REQUIRE(contains(error_of([&] { Tokenizer::open(folder / "none.model"); }), folder / "none.model"));
  write_text(folder / "text.model", "this is not a model, and it goes on for a while\n");
  REQUIRE(contains(error_of([&] { Tokenizer::open(folder / "text.model"); }), "not a sentencepiece model"));
  write_text(folder / "empty.model", "");
  REQUIRE(contains(error_of([&] { Tokenizer::open(folder / "empty.model"); }), "not a sentencepiece model (0 bytes)"));
}

TEST_CASE("UTF-8 is checked to the letter", "[utf8]") {
  const auto valid = [](const std::string& text) { return utf8_valid_prefix(text); };
  REQUIRE(valid("plain ASCII, longer than one word") == 33);
  REQUIRE(valid("\xC3\xA9\xE2\x82\xAC\xF0\x9F\x99\x82") == 9);
  REQUIRE(valid("a\xC0\x80") == 1);         // overlong
  REQUIRE(valid("\xE0\x9F\xBF") == 0);      // overlong
  REQUIRE(valid("\xF0\x8F\xBF\xBF") == 0);  // overlong
  REQUIRE(valid("\xED\xA0\x80") == 0);      // surrogate
  REQUIRE(valid("\xF4\x90\x80\x80") == 0);  // above U+10FFFF
  REQUIRE(valid("\xF5\x80\x80\x80") == 0);
  REQUIRE(valid("12345678\x80") == 8);
  REQUIRE(valid("12345678\xE2\x82") == 8);  // ends early
  REQUIRE(utf8_unfinished_tail("a") == 0);
  REQUIRE(utf8_unfinished_tail("a\xE2\x82") == 2);
  REQUIRE(utf8_unfinished_tail("a\xF0\x9F\x99") == 3);
  REQUIRE(utf8_unfinished_tail("a\xE2\x82\xAC") == 0);
  REQUIRE(utf8_unfinished_tail("a\xED\xA0") == 0);  // nothing can complete a surrogate
  REQUIRE(utf8_unfinished_tail("a\x80") == 0);
}
