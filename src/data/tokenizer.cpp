#include "data/tokenizer.h"

#include <sentencepiece_processor.h>
#include <xxhash.h>

#include <algorithm>
#include <array>
#include <bitset>
#include <cstring>
#include <mutex>
#include <utility>

#include "core/check.h"
#include "core/file.h"
#include "data/utf8.h"

namespace nsa::data {
namespace {

constexpr std::string_view kSpaceMark = "\xE2\x96\x81";  // U+2581: how sentencepiece writes a space inside a piece

constexpr std::size_t kLongestWord = 1 << 18;

/// Tokens of short stretches of text seen before; a new one replaces the old one in its slot, so memory is bounded. 4
/// MiB.
struct Cache {
  static constexpr std::size_t kMaxText = 22, kMaxTokens = 10, kSlots = 1 << 16;
  struct Slot {
    std::uint8_t size = 0, count = 0;  // size 0: free
    char text[kMaxText];
    std::int32_t tokens[kMaxTokens];
  };
  std::vector<Slot> slots = std::vector<Slot>(kSlots);

  Slot& slot_of(std::string_view text) { return slots[XXH3_64bits(text.data(), text.size()) % kSlots]; }
};
static_assert(sizeof(Cache::Slot) == 64);

std::string with_spaces(std::string_view piece) {
  std::string text;
  for (std::size_t i = 0; i < piece.size();) {
    if (piece.substr(i, 3) == kSpaceMark) {
      text += ' ';
      i += 3;
    } else {
      text += piece[i++];
    }
  }
  return text;
}

}  // namespace

struct Tokenizer::Impl {
  std::string spec;
  std::int64_t vocab_size = 257;
  std::int32_t eot = 256;
  std::uint64_t hash = 0;

  // The rest is empty for "bytes".
  std::unique_ptr<sentencepiece::SentencePieceProcessor> processor;
  std::vector<std::string> text_of;  // of every token
  std::array<std::int32_t, 256> byte_token{};
  std::bitset<1 << 16>
      joined;  // joined[a << 8 | b]: in some piece a character ending in byte a is followed by one starting with byte b
  std::mutex caches_lock;
  std::vector<std::unique_ptr<Cache>> caches;  // those not in use: each encode() borrows one

  void read_pieces();
  void check_lossless();
  bool may_cut(unsigned char before, unsigned char after) const {
    return !utf8_is_continuation(after) && !joined[static_cast<std::size_t>(before) << 8 | after];
  }
  void encode_library(std::string_view text, std::vector<std::int32_t>& out) const;
  void encode_stretch(std::string_view text, Cache& cache, std::vector<std::int32_t>& out) const;
  void encode_valid(std::string_view text, Cache& cache, std::vector<std::int32_t>& out) const;
  void encode(std::string_view text, std::vector<std::int32_t>& out);
};

void Tokenizer::Impl::read_pieces() {
  vocab_size = processor->GetPieceSize();
  text_of.resize(static_cast<std::size_t>(vocab_size));
  for (int id = 0; id < vocab_size; ++id) {
    if (processor->IsControl(id) || processor->IsUnknown(id) || processor->IsByte(id)) continue;
    std::string& text = text_of[static_cast<std::size_t>(id)] = with_spaces(processor->IdToPiece(id));
    for (std::size_t i = 1; i < text.size(); ++i) {
      const auto a = static_cast<unsigned char>(text[i - 1]), b = static_cast<unsigned char>(text[i]);
      if (!utf8_is_continuation(b)) joined.set(static_cast<std::size_t>(a) << 8 | b);
    }
  }
  for (int byte = 0; byte < 256; ++byte) {
    const int id = processor->PieceToId(fmt::format("<0x{:02X}>", byte));
    NSA_CHECK(processor->IsByte(id),
              "tokenizer {}: no byte fallback (piece <0x{:02X}> is missing), so it cannot hold every text: make one "
              "with train_tokenizer",
              spec, byte);
    byte_token[static_cast<std::size_t>(byte)] = id;
    text_of[static_cast<std::size_t>(id)] = std::string(1, static_cast<char>(byte));
  }
  const int named = processor->PieceToId(kEotPiece);
  eot = processor->IsControl(named) ? named : processor->eos_id();
  NSA_CHECK(eot >= 0,
            "tokenizer {}: no end-of-text piece (neither {} nor an end-of-sentence piece), which separates documents: "
            "make one with train_tokenizer",
            spec, kEotPiece);
}

void Tokenizer::Impl::check_lossless() {
  // Spaces at both ends and in a row, line ends, and what Unicode normalisation, case folding or control-character
  // removal would change.
  for (const char* text : {"a", " a  b ", "\n\t\r\n x", "AbC", "\xEF\xAC\x81\xE2\x91\xA0", "e\xCC\x81\xC3\xA9",
                           "\xE3\x80\x80\xC2\xA0.", "\xE2\x80\x8B\x01\x7F"}) {
    std::vector<std::int32_t> tokens;
    encode_library(text, tokens);
    std::string back;
    for (std::int32_t token : tokens) back += text_of[static_cast<std::size_t>(token)];
    NSA_CHECK(back == text,
              "tokenizer {}: not lossless: it turns \"{}\" into \"{}\" (a normalisation rule, a dummy prefix, or "
              "spaces removed): make one with train_tokenizer",
              spec, text, back);
  }
}

void Tokenizer::Impl::encode_library(std::string_view text, std::vector<std::int32_t>& out) const {
  std::vector<int> ids;
  const auto status = processor->Encode(text, &ids);
  NSA_CHECK(status.ok(), "tokenizer {}: cannot encode {} bytes of text: {}", spec, text.size(), status.ToString());
  out.insert(out.end(), ids.begin(), ids.end());
}

/// A stretch between two cuts, non-empty. The library needs 83 bytes of memory for each byte of it, so a longer one is
/// cut all the same: always at the same places, and what is lost is at most a join across each.
void Tokenizer::Impl::encode_stretch(std::string_view text, Cache& cache, std::vector<std::int32_t>& out) const {
  while (text.size() > kLongestWord) {
    std::size_t end = kLongestWord;
    while (utf8_is_continuation(static_cast<unsigned char>(text[end]))) --end;
    encode_library(text.substr(0, end), out);
    text.remove_prefix(end);
  }
  if (text.size() > Cache::kMaxText) return encode_library(text, out);
  Cache::Slot& slot = cache.slot_of(text);
  if (slot.size != text.size() || std::memcmp(slot.text, text.data(), text.size()) != 0) {
    const std::size_t begin = out.size();
    encode_library(text, out);
    const std::size_t count = out.size() - begin;
    if (count > Cache::kMaxTokens) return;
    slot.size = static_cast<std::uint8_t>(text.size());
    slot.count = static_cast<std::uint8_t>(count);
    std::memcpy(slot.text, text.data(), text.size());
    std::copy_n(out.data() + begin, count, slot.tokens);
    return;
  }
  out.insert(out.end(), slot.tokens, slot.tokens + slot.count);
}

void Tokenizer::Impl::encode_valid(std::string_view text, Cache& cache, std::vector<std::int32_t>& out) const {
  std::size_t begin = 0;
  const auto flush = [&](std::size_t end) {
    if (end > begin) encode_stretch(text.substr(begin, end - begin), cache, out);
    begin = end;
  };
  for (std::size_t i = 0; i < text.size(); ++i) {
    const auto byte = static_cast<unsigned char>(text[i]);
    if (byte == 0xE2 &&
        text.substr(i, 3) ==
            kSpaceMark) {  // the library would give a space back for this character: it is written as its bytes
      flush(i);
      for (std::size_t k = 0; k < 3; ++k) out.push_back(byte_token[static_cast<unsigned char>(text[i + k])]);
      begin = i + 3;
      i += 2;
    } else if (i > begin && may_cut(static_cast<unsigned char>(text[i - 1]), byte)) {
      flush(i);
    }
  }
  flush(text.size());
}

void Tokenizer::Impl::encode(std::string_view text, std::vector<std::int32_t>& out) {
  std::unique_ptr<Cache> cache;
  {
    std::lock_guard lock(caches_lock);
    if (!caches.empty()) {
      cache = std::move(caches.back());
      caches.pop_back();
    }
  }
  if (!cache) cache = std::make_unique<Cache>();
  while (!text.empty()) {
    const std::size_t valid = utf8_valid_prefix(text);
    encode_valid(text.substr(0, valid), *cache, out);
    text.remove_prefix(valid);
    if (text.empty()) break;
    out.push_back(byte_token[static_cast<unsigned char>(text[0])]);
    text.remove_prefix(1);
  }
  std::lock_guard lock(caches_lock);
  caches.push_back(std::move(cache));
}

Tokenizer::Tokenizer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Tokenizer::~Tokenizer() = default;
Tokenizer::Tokenizer(Tokenizer&&) noexcept = default;
Tokenizer& Tokenizer::operator=(Tokenizer&&) noexcept = default;

Tokenizer Tokenizer::open(const std::string& spec) {
  auto impl = std::make_unique<Impl>();
  impl->spec = spec;
  if (spec == "bytes") {
    impl->hash = XXH3_64bits(spec.data(), spec.size());
    return Tokenizer(std::move(impl));
  }
  const std::string model = read_file(spec);
  impl->hash = XXH3_64bits(model.data(), model.size());
  impl->processor = std::make_unique<sentencepiece::SentencePieceProcessor>();
  const bool loaded =
      !model.empty() && impl->processor->LoadFromSerializedProto(model).ok() && impl->processor->GetPieceSize() > 0;
  NSA_CHECK(loaded,
            "tokenizer {}: not a sentencepiece model ({} bytes); give \"bytes\" or the .model file that "
            "train_tokenizer wrote",
            spec, model.size());
  impl->read_pieces();
  impl->check_lossless();
  return Tokenizer(std::move(impl));
}

std::int64_t Tokenizer::vocab_size() const { return impl_->vocab_size; }
std::int32_t Tokenizer::eot() const { return impl_->eot; }
std::uint64_t Tokenizer::hash() const { return impl_->hash; }
const std::string& Tokenizer::spec() const { return impl_->spec; }

void Tokenizer::encode(std::string_view text, std::vector<std::int32_t>& out) const {
  if (impl_->processor) return impl_->encode(text, out);
  const auto* bytes = reinterpret_cast<const unsigned char*>(text.data());
  out.insert(out.end(), bytes, bytes + text.size());
}

std::vector<std::int32_t> Tokenizer::encode(std::string_view text) const {
  std::vector<std::int32_t> out;
  encode(text, out);
  return out;
}

std::string Tokenizer::decode(const std::vector<std::int32_t>& tokens) const {
  std::string text;
  for (std::int32_t token : tokens) {
    NSA_CHECK(token >= 0 && token < impl_->vocab_size, "tokenizer {}: token {} is outside the vocabulary of {}",
              impl_->spec, token, impl_->vocab_size);
    if (impl_->processor) {
      text += impl_->text_of[static_cast<std::size_t>(token)];
    } else if (token < 256) {
      text += static_cast<char>(token);
    }
  }
  return text;
}

std::size_t Tokenizer::cut(std::string_view text, std::size_t at) const {
  if (text.size() < 2) return 0;
  std::size_t p = std::min(at, text.size() - 1);
  if (!impl_->processor) return p;
  while (p > 0 && !impl_->may_cut(static_cast<unsigned char>(text[p - 1]), static_cast<unsigned char>(text[p]))) --p;
  return p;
}

std::string StreamDecoder::push(std::int32_t token) {
  unfinished_ += tokenizer_.decode({token});
  const std::size_t ready = unfinished_.size() - utf8_unfinished_tail(unfinished_);
  std::string text = unfinished_.substr(0, ready);
  unfinished_.erase(0, ready);
  return text;
}

std::string StreamDecoder::finish() { return std::exchange(unfinished_, {}); }

}  // namespace nsa::data
