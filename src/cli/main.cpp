// The `nsa` program: finds the verb, and is the only place that catches errors and decides the exit code.
#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <new>
#include <string>
#include <vector>

#include "cli/verbs.h"
#include "core/check.h"
#include "core/fields.h"
#include "core/parallel.h"
#include "core/version.h"

namespace nsa::cli {

namespace {

struct Verb {
  const char* name;
  const char* help;
  Exit (*run)(CLI::App& app, int argc, char** argv);
};

#define NSA_VERB_ENTRY(function, help) {#function, help, function},
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
    return verb->run(app, argc, argv);
  } catch (const CLI::ParseError& e) {  // also thrown by --help
    if (e.get_exit_code() == 0) {
      app.exit(e);
      return Exit::ok;
    }
    fail_usage("{}: {}; `nsa {} --help` shows the arguments", name, e.what(), name);
  }
}

Exit run(int argc, char** argv) {
  const std::string verb = argc > 1 ? argv[1] : "";
  if (verb == "--help" || verb == "-h" || verb == "help") {
    fmt::print("{}", usage());
    return Exit::ok;
  }
  if (verb == "--version") {
    fmt::print("nsa {} ({})\n", version(), commit());
    return Exit::ok;
  }
  if (verb.empty()) {
    fmt::print(stderr, "{}", usage());
    return Exit::usage;
  }
  return run_verb(verb, argc - 1, argv + 1);
}

/// Results that did not reach the file they were redirected to are an error, not a success.
void flush_results() {
  NSA_CHECK(std::fflush(stdout) == 0 && std::ferror(stdout) == 0, "standard output: {}", std::strerror(errno));
}

Exit guarded(int argc, char** argv) {
  try {
    const Exit code = run(argc, argv);
    flush_results();
    return code;
  } catch (const Error& e) {
    std::fflush(stdout);
    fmt::print(stderr, "nsa: {}\n", e.what());
    return e.code();
  } catch (const std::bad_alloc&) {
    fmt::print(stderr, "nsa: out of memory; `nsa plan CONFIG` shows what a run needs\n");
  } catch (const std::exception& e) {
    fmt::print(stderr, "nsa: unexpected: {}\n", e.what());
  }
  return Exit::error;
}

}  // namespace

}  // namespace nsa::cli

int main(int argc, char** argv) {
  nsa::bound_thread_spin(argv);
  return static_cast<int>(nsa::cli::guarded(argc, argv));
}
