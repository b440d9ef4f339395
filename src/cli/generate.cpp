// nsa generate RUN --prompt "...": the continuation streams to the terminal.
#include "eval/generate.h"

#include <cstdio>

#include "cli/verbs.h"
#include "core/program.h"
#include "train/checkpoint.h"
#include "train/inputs.h"
#include "train/plan.h"
#include "train/run.h"

namespace nsa::cli {

Exit generate(CLI::App& app, int argc, char** argv) {
  std::string run, prompt, tokenizer_path;
  GenerateOptions options;
  int threads = 0;
  app.add_option("run", run, "run folder, runs/NAME")->required()->transform(home_path());
  app.add_option("--prompt", prompt, "text to continue; empty: the start of a document");
  app.add_option("--tokens", options.tokens, "tokens to generate at most")
      ->check(CLI::Range(std::int64_t{1}, std::int64_t{1} << 20));
  app.add_option("--temperature", options.temperature, "0: the likeliest token")->check(CLI::NonNegativeNumber);
  app.add_option("--top-k", options.top_k, "draw among the k likeliest tokens; 0: all")->check(CLI::NonNegativeNumber);
  app.add_option("--top-p", options.top_p, "draw among the likeliest tokens that hold this probability")
      ->check(CLI::Range(0.0, 1.0));
  app.add_option("--seed", options.seed, "same seed, same text");
  app.add_option("--tokenizer", tokenizer_path,
                 "where the run's tokenizer is, when neither its folder nor its config's data.tokenizer says")
      ->transform(home_path());
  app.add_option("--threads", threads, "CPU threads; 0: as the run's config says")->check(CLI::NonNegativeNumber);
  app.parse(argc, argv);

  std::vector<std::string> warnings;
  const CheckpointFile checkpoint = find_checkpoint(run, warnings, threads ? threads : available_cores());
  NSA_CHECK(!checkpoint.path.empty(),
            "{}: no checkpoint to generate from{}; is this a run folder (runs/NAME) that has been trained?", run,
            warnings.empty() ? "" : " (" + warnings.front() + ")");
  const TrainState state = load_state(checkpoint);
  SavedConfig saved = read_saved_config(state.config, checkpoint.path + "/state.json");
  if (threads) saved.config.threads = threads;
  const Config& config = saved.config;
  for (const std::string& note : saved.old.notes) warnings.push_back(checkpoint.path + ": " + note);
  const data::Tokenizer tokenizer = tokenizer_of_run(run, config, state.tokenizer_hash, tokenizer_path, warnings);
  for (const std::string& w : warnings) std::fprintf(stderr, "warning: %s\n", w.c_str());
  check(config.model);
  NSA_CHECK(config.data.sequence_length > 0, "{}: its config has no data.sequence_length", checkpoint.path);

  const std::int64_t max_T = config.data.sequence_length;
  const MemoryPlan plan = plan_generation(config);
  Device dev = make_device(config);
  dev.reserve(plan.params.bytes, plan.work.bytes);
  Gpt gpt(dev, config.model, max_T, Params::With::weights, compute_type(config));
  load_tensors(model_file(checkpoint), gpt.params().weights(), dev.threads);
  gpt.params().refresh_copies(dev);

  const auto print = [](std::string_view piece) {
    std::fwrite(piece.data(), 1, piece.size(), stdout);
    flush_results();
  };
  print(prompt);
  nsa::generate(dev, gpt, tokenizer, prompt, max_T, options, print);
  print("\n");
  return Exit::ok;
}

}  // namespace nsa::cli
