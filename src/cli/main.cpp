// The `nsa` program: finds the verb.
#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <new>
#include <string>
#include <vector>

#include "cli/verbs.h"
#include "core/check.h"
#include "core/fields.h"
#include "core/parallel.h"
#include "core/program.h"
#include "core/version.h"

namespace nsa::cli {

namespace {

struct Verb {
  const char* name;
  Stdout stdout_holds;
  const char* help;
  Exit (*run)(CLI::App& app, int argc, char** argv);
};

#define NSA_VERB_ENTRY(function, holds, help) {#function, Stdout::holds, help, function},
constexpr Verb kVerbs[] = {NSA_VERBS(NSA_VERB_ENTRY)};
#undef NSA_VERB_ENTRY

std::string usage() {
  std::string text =
      "nsa trains language models with Native Sparse Attention.\n\nusage: nsa VERB ...   (nsa VERB --help says "
      "more)\n\n";
  for (const Verb& verb : kVerbs) text += fmt::format("  {:<10} {}\n", verb.name, verb.help);
  return text + fmt::format("  {:<10} {}\n", "--version", "print version and commit");
}

Exit run_verb(const std::string& name, int argc, char** argv) {
  const auto* verb = std::find_if(std::begin(kVerbs), std::end(kVerbs), [&](const Verb& v) { return name == v.name; });
  if (verb == std::end(kVerbs)) {
    std::vector<std::string> names;
    for (const Verb& v : kVerbs) names.emplace_back(v.name);
    const std::string close = did_you_mean(name, names);
    fail_usage("unknown verb \"{}\"{}; `nsa --help` lists them", name,
               close.empty() ? "" : fmt::format(": did you mean \"{}\"?", close));
  }
  CLI::App app(verb->help, fmt::format("nsa {}", name));
  try {
    const Exit code = verb->run(app, argc, argv);
    if (code == Exit::ok && verb->stdout_holds == Stdout::results) flush_results();
    return code;
  } catch (const CLI::ParseError& e) {  // also thrown by --help
    if (e.get_exit_code() != 0) fail_usage("{}: {}; `nsa {} --help` shows the arguments", name, e.what(), name);
    app.exit(e);
    flush_results();
    return Exit::ok;
  } catch (const std::bad_alloc&) {
    fail("out of memory; `nsa plan CONFIG` shows what a run needs");
  }
}

Exit run(int argc, char** argv) {
  const std::string verb = argc > 1 ? argv[1] : "";
  if (verb.empty()) {
    std::fputs(usage().c_str(), stderr);
    return Exit::usage;
  }
  const bool help = verb == "--help" || verb == "-h" || verb == "help";
  if (!help && verb != "--version") return run_verb(verb, argc - 1, argv + 1);
  std::fputs(help ? usage().c_str() : fmt::format("nsa {} ({})\n", version(), commit()).c_str(), stdout);
  flush_results();
  return Exit::ok;
}

}  // namespace

}  // namespace nsa::cli

int main(int argc, char** argv) {
  return nsa::run_program([&] {
    nsa::bound_thread_spin(argv);
    return nsa::cli::run(argc, argv);
  });
}
