// Paths on a command line, of the verbs and of the data tools.
#pragma once

#include <CLI/CLI.hpp>
#include <string>

#include "core/file.h"

namespace nsa::cli {

/// For every option that holds a path, ->transform(home_path()): ~ at its start is the home folder (--out=~/x reaches
/// us as it is written).
inline CLI::Validator home_path() {
  return CLI::Validator(
      [](std::string& path) {
        path = expand_home(path);
        return std::string();
      },
      "");
}

}  // namespace nsa::cli
