// Made-up runs that look like real ones: a falling loss with noise, warm-up and cosine, validation points, gates, and
// on request what goes wrong in life.
#pragma once

#include <fmt/format.h>

#include <cmath>
#include <cstdint>
#include <string>

#include "core/file.h"
#include "core/rng.h"

namespace nsa::test {

struct Synthetic {
  std::string name = "nsa-seed1", attention = "nsa";
  int seed = 1, steps = 2000, planned = 2000, val_every = 200, layers = 4;
  double floor = 1.65, noise = 0.05, ms = 180, lr = 3e-3;
  std::string tokenizer = "bytes", hash = {};  // of the config; of the run record, "" as before it was recorded
  int vocab = 256;
  double bytes_per_token = 1.02;          // of the validation text; 0: no bits per byte
  int diverges_at = 0, max_skipped = 20;  // from there on no finite loss; 0: never
  double accuracy = 0;                    // of masked validation data; 0: none are
  bool trouble = false;                   // spikes, skipped steps, null losses
  bool cut_last = false;                  // the last line ends in its middle
  bool looks = true;                      // gates records with more than the gates; false: as older versions wrote them
};

inline std::string run_record(const Synthetic& s, int resumed_from = 0) {
  return fmt::format(
      R"({{"type":"run","version":"0.1","commit":"3d5f254","command":"nsa train configs/{0}.json train.seed={1}",)"
      R"("machine":"8-core EPYC, 2 threads","date":"2026-01-0{1}T10:00:00Z",)"
      R"("config":{{"model":{{"vocab_size":{10},"hidden_size":128,"attention":{{"type":"{0}","num_heads":4}}}},)"
      R"("data":{{"tokenizer":"{9}","seed":1}},"train":{{"steps":{2},"batch_tokens":8192,"seed":{1},)"
      R"("max_skipped":{11},"optimizer":{{"lr":{4}}}}},)"
      R"("log":{{"name":"{5}"}}}},"parameters":{3},"flops_per_token":{6},"peak_gflops":234.5,)"
      R"("memory_bytes":{7},{12}"resumed_from":{8}}})"
      "\n",
      s.attention, s.seed, s.planned, s.attention == "nsa" ? 1305216 : 1181696, s.lr, s.name,
      s.attention == "nsa" ? 9.1e6 : 9.8e6, s.attention == "nsa" ? 412.5e6 : 398.1e6, resumed_from, s.tokenizer,
      s.vocab, s.max_skipped, s.hash.empty() ? "" : "\"tokenizer_hash\":\"" + s.hash + "\",");
}

inline double true_loss(const Synthetic& s, double step) { return s.floor + 3.4 * std::pow(1 + step / 30, -0.62); }

inline std::string metrics_text(const Synthetic& s) {
  std::string out = run_record(s);
  const Rng noise(static_cast<std::uint64_t>(s.seed), s.name), data(static_cast<std::uint64_t>(s.seed), "data order");
  double seconds = 0;
  for (int step = 1; step <= s.steps; ++step) {
    const auto i = static_cast<std::uint64_t>(step);
    double loss = true_loss(s, step) + s.noise * data.normal(i) + 0.4 * s.noise * noise.normal(i);
    double norm = 0.4 + 2.5 / (1 + step / 40.0) + 0.1 * std::fabs(noise.normal(i + 100000));
    const double ms = s.ms * (1 + 0.03 * noise.normal(i + 200000)), warm = std::min(1.0, step / 100.0);
    const double lr =
        s.lr * warm *
        (0.1 + 0.45 * (1 + std::cos(3.14159265 * std::max(0, step - 100) / std::max(1, s.planned - 100))));
    bool skipped = false;
    if (s.trouble && step % 487 == 0) {
      loss += 2.5;
      norm *= 30;
    }
    if (s.trouble && step % 613 == 0) skipped = true;
    if (s.diverges_at && step >= s.diverges_at) skipped = true;
    if (s.diverges_at && step >= s.diverges_at + s.max_skipped) break;
    seconds += ms / 1000;
    out += fmt::format(
        R"({{"type":"step","step":{},"tokens":{},"loss":{},"grad_norm":{},"lr":{:.6g},"ms":{:.1f},"seconds":{:.2f},)"
        R"("tokens_per_s":{:.0f},"share_of_peak":{:.3f},"z_loss":{:.2f},"z_norm":{:.2f})",
        step, step * 8192LL, skipped ? "null" : fmt::format("{:.5f}", loss),
        skipped ? "null" : fmt::format("{:.4f}", norm), lr, ms, seconds, 8192e3 / ms, 0.55, noise.normal(i), 0.1);
    out += skipped ? ",\"skipped\":true,\"reason\":\"non-finite\"}\n" : "}\n";
    if (s.val_every && (step % s.val_every == 0 || step == s.planned)) {
      const double val = true_loss(s, step) + 0.03 + 0.006 * noise.normal(i + 300000) + 0.012 * data.normal(77);
      out += fmt::format(
          R"({{"type":"val","step":{},"tokens":{},"loss":{:.5f}{}{}}})"
          "\n",
          step, step * 8192LL, val,
          s.bytes_per_token > 0 ? fmt::format(R"(,"bits_per_byte":{:.5f})", val / 0.693147 / s.bytes_per_token) : "",
          s.accuracy > 0 ? fmt::format(R"(,"val_accuracy":{:.4f},"counted":512)", s.accuracy) : "");
      if (s.attention == "nsa") {
        std::string layers, entropy, coverage, shares;
        for (int l = 0; l < s.layers; ++l) {
          const double t = step / 2000.0, cmp = l ? 0.3 : 0.02 * std::exp(-2 * t);  // the first falls silent
          const char* const comma = l ? "," : "";
          entropy += fmt::format("{}{:.4f}", comma, 1 - 0.5 * t / (1 + l));
          coverage += fmt::format("{}[{:.4f},{:.4f}]", comma, 0.3 + 0.4 * t / (1 + l), 0.3 + 0.05 * t);
          shares += fmt::format("{}[{:.6g},{:.6g},{:.6g}]", comma, cmp, 0.6 * (1 - cmp), 0.4 * (1 - cmp));
          layers += fmt::format("{}[{:.4f},{:.4f},{:.4f}]", l ? "," : "", 0.5 - 0.1 * t * l, 0.5 + 0.07 * t * (l - 1),
                                0.5 + 0.3 * t / (1 + l));
        }
        const std::string more =
            s.looks ? fmt::format(R"(,"entropy":[{}],"coverage":[{}],"output_share":[{}])", entropy, coverage, shares)
                    : "";
        out += fmt::format(R"({{"type":"gates","step":{},"layers":[{}]{}}})"
                           "\n",
                           step, layers, more);
      }
      out += fmt::format(R"({{"type":"checkpoint","step":{},"path":"runs/{}/checkpoints/step_{:08}","ms":142.5}})"
                         "\n",
                         step, s.name, step);
    }
  }
  if (s.cut_last) out.resize(out.size() - 40);
  return out;
}

/// Writes FOLDER/NAME/metrics.jsonl and returns FOLDER/NAME.
inline std::string write_run(const std::string& folder, const Synthetic& s) {
  const std::string dir = folder + "/" + s.name;
  make_folders(dir);
  write_file_atomic(dir + "/metrics.jsonl", metrics_text(s));
  return dir;
}

/// Full attention against NSA, three seeds each.
inline std::vector<std::string> write_comparison(const std::string& folder) {
  std::vector<std::string> paths;
  for (const char* attention : {"full", "nsa"}) {
    for (int seed = 1; seed <= 3; ++seed) {
      Synthetic s;
      s.name = fmt::format("{}-seed{}", attention, seed);
      s.attention = attention;
      s.seed = seed;
      if (s.attention == "full") {
        s.floor = 1.66;
        s.ms = 240;
      }
      s.trouble = seed == 2;
      paths.push_back(write_run(folder, s));
    }
  }
  return paths;
}

}  // namespace nsa::test
