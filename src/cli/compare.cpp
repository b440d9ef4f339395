// nsa compare A.json B.json [more] [--seeds 1,2,3] [--out DIR]: trains every config with every seed, then writes the
// page. Killed and started again it goes on where it was; a finished run is never trained twice.
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <filesystem>
#include <set>

#include "cli/verbs.h"
#include "core/program.h"
#include "core/signals.h"
#include "core/text.h"
#include "report/page.h"
#include "report/terminal.h"
#include "train/make_device.h"
#include "train/run.h"

namespace nsa::cli {

namespace {

using Clock = std::chrono::steady_clock;

struct PlannedRun {
  std::string group;
  Config config;
};

// What may differ between compared configs: the attention, and where the run is kept.
bool may_differ(const std::string& line) {
  return line.rfind("model.attention.", 0) == 0 || line.rfind("log.", 0) == 0;
}

// One sentence for every config that differs from the first in more than attention.
std::vector<std::string> other_differences(std::vector<Config> configs, const std::vector<std::string>& paths) {
  std::vector<std::string> sentences;
  for (std::size_t i = 1; i < configs.size(); ++i) {
    std::string all;
    for (const std::string& line : differences(fields_of(configs[0]), fields_of(configs[i]))) {
      if (!may_differ(line)) all += (all.empty() ? "" : "; ") + line;
    }
    if (!all.empty())
      sentences.push_back(fmt::format("{} and {} differ in more than attention ({})", paths[0], paths[i], all));
  }
  return sentences;
}

// Seed by seed, so that a comparison that is stopped early already has pairs.
std::vector<PlannedRun> planned_runs(const std::vector<Config>& configs, const std::vector<std::string>& paths,
                                     const std::vector<std::int64_t>& seeds, const std::string& out) {
  std::vector<PlannedRun> runs;
  for (std::int64_t seed : seeds)
    for (std::size_t i = 0; i < configs.size(); ++i) {
      PlannedRun run{std::filesystem::path(paths[i]).stem().string(), configs[i]};
      run.config.train.seed = run.config.data.seed =
          seed;  // equal in every group: the same order of data, the same values in tensors that are shared
      run.config.log.dir = out + "/runs";
      run.config.log.name = fmt::format("{}_seed{}", run.group, seed);
      runs.push_back(run);
    }
  return runs;
}

// "run 2/6 nsa_seed1: step 120/400, loss 3.21; all 31 %, ETA 12:31", redrawn in place on a terminal, else every 10 s.
class Progress {
 public:
  explicit Progress(const std::vector<PlannedRun>& runs) : runs_(runs), terminal_(takes_escape_codes(STDERR_FILENO)) {
    for (const PlannedRun& run : runs) total_ += tokens_of(run.config, run.config.total_steps());
  }
  void begin(std::size_t index) {
    index_ = index;
    before_ = 0;
    for (std::size_t i = 0; i < index; ++i) before_ += tokens_of(runs_[i].config, runs_[i].config.total_steps());
  }
  void step(std::int64_t step, double loss) {
    const Config& config = runs_[index_].config;
    const double done = before_ + tokens_of(config, step),
                 elapsed = std::chrono::duration<double>(Clock::now() - start_).count();
    if (first_done_ < 0) first_done_ = done - tokens_of(config, 1);
    const bool last = step == config.total_steps();
    if (!last && elapsed - shown_ < (terminal_ ? 0.2 : 10.0)) return;
    shown_ = elapsed;
    const double eta = elapsed * (total_ - done) / std::max(done - first_done_, 1.0);
    std::fprintf(stderr, "%srun %zu/%zu %s: step %lld/%lld, loss %.4f; all %s, ETA %s%s", terminal_ ? "\r\033[K" : "",
                 index_ + 1, runs_.size(), config.log.name.c_str(), static_cast<long long>(step),
                 static_cast<long long>(config.total_steps()), loss, percent(done / total_, 0).c_str(),
                 human_duration(eta).c_str(), terminal_ && !last ? "" : "\n");
    std::fflush(stderr);
  }

 private:
  static double tokens_of(const Config& config, std::int64_t steps) {
    return static_cast<double>(steps * config.train.batch_tokens);
  }
  const std::vector<PlannedRun>& runs_;
  bool terminal_;
  std::size_t index_ = 0;
  double total_ = 0, before_ = 0, first_done_ = -1, shown_ = -1e9;
  Clock::time_point start_ = Clock::now();
};

enum class End { finished, diverged, stopped };  // stopped: by a signal, its state is saved

// A run that diverges is a result: the others go on.
End train_to_end(const PlannedRun& run, const std::string& command, Progress& progress) {
  RunOptions options;
  options.command = command;
  options.console = false;
  options.on_step = [&](std::int64_t step, double loss) { progress.step(step, loss); };
  try {
    nsa::train(run.config, options);
  } catch (const Error& error) {
    if (error.code() != Exit::non_finite) throw;
    std::fprintf(stderr, "\n%s: %s\n", run.config.log.name.c_str(), error.what());
    return End::diverged;
  }
  return run_finished(run.config) ? End::finished : End::stopped;
}

std::string joined(const std::vector<std::string>& names) {
  std::string all;
  for (const std::string& name : names) all += (all.empty() ? "" : ", ") + name;
  return all;
}

void write_report(const std::vector<PlannedRun>& runs, std::size_t count, const std::string& out,
                  const std::string& command, bool on_terminal) {
  std::vector<report::Source> sources;
  for (std::size_t i = 0; i < count; ++i)
    sources.push_back({run_dir(runs[i].config), runs[i].group, std::to_string(runs[i].config.train.seed)});
  std::vector<report::History> read;
  const report::Comparison comparison =
      report::make_report(sources, out, -1, {now_utc(), command}, cpu_threads(runs[0].config), read);
  if (on_terminal) std::fputs(report::report_text(comparison, 100).c_str(), stdout);
}

}  // namespace

Exit compare(CLI::App& app, int argc, char** argv) {
  std::vector<std::string> paths;
  std::vector<std::int64_t> seeds{1};
  std::string out = "compare";
  bool allow = false;
  app.add_option("configs", paths, "two or more config files; the first is what the others are compared with")
      ->required()
      ->expected(2, 64)
      ->transform(home_path());
  app.add_option("--seeds", seeds, "one run of every config for each, paired by seed")->delimiter(',');
  app.add_option("--out", out, "folder for the runs, report.html, curves.svg and curves.tsv")->transform(home_path());
  app.add_flag("--allow-differences", allow,
               "compare configs that differ in more than attention; the page lists every difference");
  app.parse(argc, argv);
  if (std::set<std::int64_t>(seeds.begin(), seeds.end()).size() != seeds.size())
    fail_usage("--seeds names a seed twice: a pair of runs would count double");

  std::vector<Config> configs;
  std::set<std::string> groups;
  for (const std::string& path : paths) {
    configs.push_back(load_config(path));
    const std::string group = std::filesystem::path(path).stem().string();
    if (!groups.insert(group).second)
      fail_usage("two configs are called {}: the file name is the name of the curve, rename one", group);
  }
  for (const std::string& sentence : other_differences(configs, paths)) {
    if (!allow)
      fail_usage("{}: compare like with like, or give --allow-differences to have them marked on the page", sentence);
    std::fprintf(stderr, "warning: %s\n", sentence.c_str());
  }

  const std::string command = command_line("nsa", argc, argv);
  const std::vector<PlannedRun> runs = planned_runs(configs, paths, seeds, out);
  Progress progress(runs);
  const StopSignals signals;  // between the runs, too
  std::vector<std::string> diverged;
  for (std::size_t i = 0; i < runs.size(); ++i) {
    if (run_finished(runs[i].config)) continue;
    if (run_diverged(runs[i].config)) {  // on an earlier start
      diverged.push_back(runs[i].config.log.name);
      continue;
    }
    progress.begin(i);
    const End end = signals.requested() ? End::stopped : train_to_end(runs[i], command, progress);
    if (end == End::diverged) diverged.push_back(runs[i].config.log.name);
    if (end == End::stopped) {
      std::fprintf(stderr, "\nrun %zu of %zu is not finished; the same command goes on from its last checkpoint\n",
                   i + 1, runs.size());
      return Exit::ok;
    }
    if (i + 1 < runs.size())
      write_report(runs, i + 1, out, command, false);  // something to look at while the rest trains
  }
  write_report(runs, runs.size(), out, command, true);
  if (!diverged.empty()) {
    std::printf("diverged, and compared only as far as they got: %s\n", joined(diverged).c_str());
  }
  std::printf("%s/report.html, curves.svg, curves.tsv\n", out.c_str());
  return Exit::ok;
}

}  // namespace nsa::cli
