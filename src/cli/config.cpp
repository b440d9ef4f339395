// nsa config: what a config means, with every field spelt out.
#include <cstdio>

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
  app.add_option("config", path, "a config file")->transform(home_path());
  app.add_option("overrides", overrides, "section.key=value, applied in order");
  app.parse(argc, argv);

  if (reference + schema + !path.empty() != 1)
    fail_usage("config: give one of CONFIG, --reference and --schema; `nsa config --help` shows the arguments");
  if (reference) std::fputs(config_reference().c_str(), stdout);
  if (schema) std::puts(config_schema().c_str());
  if (!path.empty()) std::puts(to_json(load_config(path, overrides)).c_str());
  return Exit::ok;
}

}  // namespace nsa::cli
