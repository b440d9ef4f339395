// The verbs of the `nsa` binary: src/cli/VERB.cpp holds one function, and one line here registers it.
#pragma once

#include <CLI/CLI.hpp>

#include "cli/paths.h"
#include "core/check.h"

/// X(function, what its stdout holds, what `nsa --help` says). A verb's spelling is its function's name.
#define NSA_VERBS(X)                                                                                 \
  X(train, progress, "train a model from a config; an existing run is resumed")                      \
  X(compare, progress, "train several configs with several seeds on equal terms and write the page") \
  X(plan, results, "parameters, FLOPs, memory and time of a config, without allocating")             \
  X(generate, results, "continue a prompt with a trained model")                                     \
  X(bench, results, "time training steps, ops or attention against the machine's peak")              \
  X(verify, results, "run golden files of an independent implementation")                            \
  X(report, results, "curves, table and verdict of runs as a page, or in the terminal")              \
  X(watch, results, "follow a run from another terminal")                                            \
  X(config, results, "print a resolved config, the reference of all fields, or the JSON Schema")

namespace nsa::cli {

/// Results that do not get to where stdout leads are an error; progress is not worth one: what was made is in files.
enum class Stdout { results, progress };

/// Declares its arguments on `app`, calls app.parse(argc, argv) (argv[0] is the verb), does the work, returns the exit
/// code. Errors are thrown; main catches.
#define NSA_VERB_DECLARE(function, holds, help) Exit function(CLI::App& app, int argc, char** argv);
NSA_VERBS(NSA_VERB_DECLARE)
#undef NSA_VERB_DECLARE

}  // namespace nsa::cli
