#include "eval/golden_config.h"

#include <map>

#include "core/fields.h"
#include "core/json.h"

namespace nsa {

namespace {

// Golden key -> path in the config's own field list. A key not listed here is unknown: better refused than ignored.
const std::map<std::string, std::string> kPaths = {
    {"attention", "attention.type"}, {"hidden_size", "hidden_size"},
    {"vocab_size", "vocab_size"},    {"intermediate_size", "intermediate_size"},
    {"num_layers", "num_layers"},    {"tie_embeddings", "tie_embeddings"},
    {"norm_eps", "norm_eps"},        {"rope_theta", "rope_theta"}};

std::string path_of(const std::string& key, const FieldList& list) {
  const auto known = kPaths.find(key);
  if (known != kPaths.end()) return known->second;
  const std::string path = "attention." + key;
  for (const FieldRef& field : list.fields) {
    if (field.path == path) return path;
  }
  return "";
}

std::string text_of(const nlohmann::json& value) { return value.is_string() ? value.get<std::string>() : value.dump(); }

}  // namespace

GoldenConfig read_golden_config(const SafetensorsReader& file) {
  const auto meta = [&](const char* key) {
    const auto it = file.metadata().find(key);
    NSA_CHECK(it != file.metadata().end(),
              "{}: the header's __metadata__ has no \"{}\": not a golden file (NSA.md describes the format)",
              file.path(), key);
    return it->second;
  };
  GoldenConfig golden;
  golden.kind = meta("kind");
  golden.model.vocab_size = 2, golden.model.num_layers = 1,
  golden.model.intermediate_size = 1;  // a layer file does not have them
  const nlohmann::json config = parse_json(meta("config"), file.path() + " (config)", Comments::refuse, Exit::error);
  FieldList list = fields_of(golden.model);
  for (const auto& [key, value] : config.items()) {
    if (key == "optimizer") continue;
    const std::string path = path_of(key, list);
    NSA_CHECK(!path.empty(), "{}: the config has an unknown key \"{}\"", file.path(), key);
    apply_override(list, path + "=" + text_of(value));
  }
  if (config.contains("optimizer")) {
    FieldList optimizer = fields_of(golden.optimizer);
    for (const auto& [key, value] : config["optimizer"].items()) {
      if (key == "grad_clip")
        golden.grad_clip = value.get<double>();
      else
        apply_override(optimizer, key + "=" + text_of(value));
    }
  }
  check(golden.model);
  return golden;
}

}  // namespace nsa
