#include "eval/generate.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "core/rng.h"
#include "core/transfer.h"

namespace nsa {

std::int32_t draw(const float* logits, std::int64_t vocab, const GenerateOptions& options, std::int64_t index) {
  const auto likeliest = std::max_element(logits, logits + vocab) - logits;
  if (options.temperature <= 0) return static_cast<std::int32_t>(likeliest);

  // candidates by falling probability, ties to the lower token
  std::vector<std::int32_t> order(static_cast<std::size_t>(vocab));
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](std::int32_t a, std::int32_t b) { return logits[a] > logits[b]; });
  if (options.top_k > 0) order.resize(static_cast<std::size_t>(std::min(options.top_k, vocab)));
  std::vector<double> p(order.size());
  double sum = 0;
  for (std::size_t i = 0; i < order.size(); ++i) {
    p[i] = std::exp((static_cast<double>(logits[order[i]]) - static_cast<double>(logits[likeliest])) /
                    options.temperature);
    sum += p[i];
  }
  std::size_t kept = 0;
  double mass = 0;
  while (kept < p.size() && (kept == 0 || mass < options.top_p * sum)) mass += p[kept++];

  double u = Rng(options.seed, "generate").uniform(static_cast<std::uint64_t>(index)) * mass;
  for (std::size_t i = 0; i < kept; ++i) {
    u -= p[i];
    if (u < 0) return order[i];
  }
  return order[kept - 1];
}

std::string generate(Device& dev, const Gpt& gpt, const data::Tokenizer& tokenizer, const std::string& prompt,
                     std::int64_t max_T, const GenerateOptions& options,
                     const std::function<void(std::string_view)>& stream) {
  ArenaScope scope(dev.work);
  const std::int64_t vocab = std::min(gpt.config().vocab_size, tokenizer.vocab_size());
  const Tensor logits = dev.work.take(DType::f32, {1, gpt.config().vocab_size}, Purpose::logits);
  const Tensor window = dev.work.take(DType::i32, {1, max_T}, Purpose::activations);
  std::vector<std::int32_t> tokens = tokenizer.encode(prompt);
  tokens.insert(tokens.begin(), tokenizer.eot());  // a document starts after an end of text
  for (std::int32_t token : tokens) {
    NSA_CHECK(token >= 0 && token < gpt.config().vocab_size,
              "the prompt holds token {} of the tokenizer {}, but the model knows only {}: it was trained with another",
              token, tokenizer.spec(), gpt.config().vocab_size);
  }
  std::vector<std::int32_t> context;
  data::StreamDecoder decoder(tokenizer);
  std::string text;
  const auto say = [&](const std::string& piece) {
    text += piece;
    if (stream && !piece.empty()) stream(piece);
  };
  for (std::int64_t i = 0; i < options.tokens; ++i) {
    // the last T tokens, padded so that few different lengths occur (each length is a set of GEMM shapes to prepare)
    const std::int64_t size = static_cast<std::int64_t>(tokens.size()), T = std::min(max_T, size),
                       padded = std::min(max_T, (T + 63) / 64 * 64);
    context.assign(static_cast<std::size_t>(padded), tokenizer.eot());
    std::copy(tokens.end() - T, tokens.end(), context.begin());
    const Tensor seen = window.view({max_T}).rows(0, padded).view({1, padded});
    upload(seen, context.data());
    gpt.next_logits(dev, logits, seen, T - 1);
    const std::int32_t next = draw(downloaded<float>(logits).data(), vocab, options, i);
    if (next == tokenizer.eot()) break;
    tokens.push_back(next);
    say(decoder.push(next));
  }
  say(decoder.finish());
  return text;
}

}  // namespace nsa
