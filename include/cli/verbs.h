// The verbs of the `nsa` binary: src/cli/VERB.cpp holds one function, and one line here registers it.
#pragma once

#include <CLI/CLI.hpp>

#include "core/check.h"

/// X(function, what `nsa --help` says). A verb's spelling is its function's name.
#define NSA_VERBS(X)                                                                       \
  X(train, "train a model from a config; an existing run is resumed")                      \
  X(compare, "train several configs with several seeds on equal terms and write the page") \
  X(plan, "parameters, FLOPs, memory and time of a config, without allocating")            \
  X(generate, "continue a prompt with a trained model")                                    \
  X(bench, "time training steps, ops or attention against the machine's peak")             \
  X(verify, "run golden files of an independent implementation")                           \
  X(report, "curves, table and verdict of runs as a page, or in the terminal")             \
  X(watch, "follow a run from another terminal")                                           \
  X(config, "print a resolved config, the reference of all fields, or the JSON Schema")

namespace nsa::cli {

/// Declares its arguments on `app`, calls app.parse(argc, argv) (argv[0] is the verb), does the work, returns the exit
/// code. Errors are thrown; main catches.
#define NSA_VERB_DECLARE(function, help) Exit function(CLI::App& app, int argc, char** argv);
NSA_VERBS(NSA_VERB_DECLARE)
#undef NSA_VERB_DECLARE

}  // namespace nsa::cli
