// nsa train CONFIG [section.key=value ...]
#include <filesystem>

#include "cli/verbs.h"
#include "core/program.h"
#include "core/signals.h"
#include "eval/generate.h"
#include "train/run.h"

namespace nsa::cli {

namespace {

std::string sample(Device& dev, const Gpt& gpt, const data::Tokenizer& tokenizer, const Config& config,
                   std::int64_t step) {
  GenerateOptions options;
  options.tokens = config.eval.sample_tokens;
  options.temperature = config.eval.sample_temperature;
  options.seed = static_cast<std::uint64_t>(step);
  return config.eval.sample_prompt +
         generate(dev, gpt, tokenizer, config.eval.sample_prompt, config.data.sequence_length, options);
}

}  // namespace

Exit train(CLI::App& app, int argc, char** argv) {
  std::string path;
  std::vector<std::string> overrides;
  RunOptions options;
  app.add_option("config", path, "config file (JSON with // comments)")->required()->transform(home_path());
  app.add_option("overrides", overrides, "section.key=value, applied in order");
  app.add_flag("--fresh", options.fresh, "refuse a run folder that is already in use instead of resuming it");
  app.add_flag("--force-data", options.force_data, "resume although the data differ from what the run began with");
  app.add_flag("--force-precision", options.force_precision,
               "resume although train.precision differs: the checkpoint holds f32 in any case");
  app.add_flag("--force-schedule", options.force_schedule, "resume although schedule, batch or optimizer differ");
  app.footer(
      "SIGTERM, SIGINT, SIGHUP, SIGUSR2 and SIGXCPU finish the step, save and end with 0; SIGUSR1 saves and goes on. "
      "The same "
      "command resumes.");
  app.parse(argc, argv);
  const StopSignals signals;  // from here on: loading takes its time, too
  Config config = load_config(path, overrides);
  if (config.log.name.empty()) config.log.name = std::filesystem::path(path).stem().string();
  options.command = command_line("nsa", argc, argv);
  options.sample = sample;
  return nsa::train(config, options);
}

}  // namespace nsa::cli
