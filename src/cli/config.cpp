// nsa config: what a config means, with every field spelt out.
#include <fmt/format.h>

#include <string>
#include <vector>

#include "cli/verbs.h"
#include "train/config.h"

namespace nsa::cli {

Exit config(CLI::App& app, int argc, char** argv) {
  bool reference = false, schema = false;
  std::string path;
  std::vector<std::string> overrides;
  app.add_flag("--reference", reference, "print the table of all fields (Markdown)");
  app.add_flag("--schema", schema, "print the JSON Schema of a config file");
  app.add_option("config", path, "a config file");
  app.add_option("overrides", overrides, "section.key=value, applied in order");
  app.parse(argc, argv);

  if (reference + schema + !path.empty() != 1)
    fail_usage("config: give one of CONFIG, --reference and --schema; `nsa config --help` shows the arguments");
  if (reference) fmt::print("{}", config_reference());
  if (schema) fmt::print("{}\n", config_schema());
  if (!path.empty()) fmt::print("{}\n", to_json(load_config(path, overrides)));
  return Exit::ok;
}

}  // namespace nsa::cli
