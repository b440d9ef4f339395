#include "core/fields.h"

#include <algorithm>
#include <cstring>
#include <set>

#include "core/fields_json.h"

namespace nsa {

using nlohmann::json;
using nlohmann::ordered_json;

namespace {

/// "section.key=value" seen as JSON: the same checks then serve files and overrides.
json override_value(const FieldRef& f, const std::string& text) {
  if (f.kind == FieldRef::Kind::text_list) {
    json list = json::array();
    for (std::size_t begin = 0; !text.empty() && begin <= text.size();) {
      const std::size_t comma = std::min(text.find(',', begin), text.size());
      list.push_back(text.substr(begin, comma - begin));
      begin = comma + 1;
    }
    return list;
  }
  if (f.kind == FieldRef::Kind::boolean && (text == "true" || text == "false")) return text == "true";
  if (f.kind == FieldRef::Kind::integer || f.kind == FieldRef::Kind::real) return number_in(text);
  return text;
}

/// All that reading one file needs.
struct FileReader {
  const FieldList& list;
  const std::string& origin;
  KeyLines lines;
  std::set<std::string> given;

  std::string where(const std::string& path) const {
    const auto found = lines.find(path);
    return found == lines.end() ? origin : fmt::format("{}, line {}", origin, found->second);
  }

  void read_section(const json& object, const std::string& prefix) {
    for (const auto& [key, value] : object.items()) {
      const std::string path = prefix + key;
      NSA_CHECK_USAGE(key.find('.') == std::string::npos,
                      "{}: the key \"{}\" contains a dot; in a file sections are nested objects: \"{}\": {{ ... }}",
                      where(path), key, key.substr(0, key.find('.')));
      const auto field =
          std::find_if(list.fields.begin(), list.fields.end(), [&](const FieldRef& f) { return f.path == path; });
      const auto section = std::find_if(list.sections.begin(), list.sections.end(),
                                        [&](const FieldList::Section& s) { return s.path == path; });
      if (field != list.fields.end()) {
        set_field(*field, value, where(path));
        given.insert(path);
      } else if (section != list.sections.end()) {
        NSA_CHECK_USAGE(value.is_object(), "{}: {} is a section ({}), expected an object {{ ... }}, got {}",
                        where(path), path, section->doc, spelled(value));
        read_section(value, path + ".");
      } else {
        unknown_key(path, prefix);
      }
    }
  }

  [[noreturn]] void unknown_key(const std::string& path, const std::string& prefix) const {
    std::vector<std::string> all, siblings;
    for (const auto& f : list.fields) all.push_back(f.path);
    for (const auto& s : list.sections) all.push_back(s.path);
    std::string known;
    for (const auto& p : all) {
      if (p.size() <= prefix.size() || p.compare(0, prefix.size(), prefix) != 0 ||
          p.find('.', prefix.size()) != std::string::npos)
        continue;
      siblings.push_back(p);
      known += (known.empty() ? "" : ", ") + p.substr(prefix.size());
    }
    std::string closest = did_you_mean(path, siblings);
    if (closest.empty()) closest = did_you_mean(path, all);
    if (!closest.empty()) fail_usage("{}: unknown key \"{}\"; did you mean \"{}\"?", where(path), path, closest);
    fail_usage("{}: unknown key \"{}\"; {} has {}", where(path), path,
               prefix.empty() ? "a config" : prefix.substr(0, prefix.size() - 1), known);
  }
};

/// Reads what another version wrote.
struct OldReader {
  const FieldList& list;
  OldConfig old;
  std::set<std::string> given, changed_sections;  // the latter hold keys that are no fields now

  void read_section(const json& object, const std::string& prefix) {
    for (const auto& [key, value] : object.items()) {
      const std::string path = prefix + key;
      const auto field =
          std::find_if(list.fields.begin(), list.fields.end(), [&](const FieldRef& f) { return f.path == path; });
      const bool section = std::any_of(list.sections.begin(), list.sections.end(),
                                       [&](const FieldList::Section& s) { return s.path == path; });
      if (field != list.fields.end()) {
        read_field(*field, value);
      } else if (section && value.is_object()) {
        read_section(value, path + ".");
      } else {
        old.notes.push_back(fmt::format("{} is no field of this version: not read", path));
        changed_sections.insert(prefix);
      }
    }
  }

  void read_field(const FieldRef& f, const json& value) {
    given.insert(f.path);
    try {
      set_field(f, value, "");
    } catch (const Error&) {
      old.notes.push_back(fmt::format("{} is {}, which this version does not allow: not read", f.path, spelled(value)));
      old.unknown.push_back(f.path);
    }
  }

  /// A field that is not there has its default, unless it may stand there under an older name or had to be given.
  void finish() {
    for (const FieldRef& f : list.fields) {
      if (given.count(f.path)) continue;
      const std::string prefix = f.path.substr(0, f.path.rfind('.') + 1);  // npos + 1 == 0
      if (!f.doc.is_required && !changed_sections.count(prefix)) continue;
      if (f.doc.is_required) old.notes.push_back(fmt::format("{} is missing", f.path));
      old.unknown.push_back(f.path);
    }
  }
};

/// Edits (insert, delete, replace, swap of neighbours) that turn a into b.
std::size_t edit_distance(const std::string& a, const std::string& b) {
  std::vector<std::vector<std::size_t>> d(a.size() + 1, std::vector<std::size_t>(b.size() + 1));
  for (std::size_t i = 0; i <= a.size(); ++i) {
    for (std::size_t j = 0; j <= b.size(); ++j) {
      if (i == 0 || j == 0) {
        d[i][j] = i + j;
        continue;
      }
      d[i][j] = std::min({d[i - 1][j] + 1, d[i][j - 1] + 1, d[i - 1][j - 1] + (a[i - 1] != b[j - 1])});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
        d[i][j] = std::min(d[i][j], d[i - 2][j - 2] + 1);
    }
  }
  return d[a.size()][b.size()];
}

std::string last_component(const std::string& path) { return path.substr(path.rfind('.') + 1); }  // npos + 1 == 0

/// Length of the leading components both have, dots included.
std::size_t common_components(const std::string& a, const std::string& b) {
  std::size_t common = 0;
  for (std::size_t i = 0; i < a.size() && i < b.size() && a[i] == b[i]; ++i) {
    if (a[i] == '.') common = i + 1;
  }
  return common;
}

std::size_t largest_misspelling(const std::string& name) {
  return name.size() <= 5 ? 1 : std::max<std::size_t>(2, name.size() / 3);
}

std::string escaped(std::string cell) {
  for (std::size_t i = 0; (i = cell.find('|', i)) != std::string::npos; i += 2) cell.insert(i, "\\");
  return cell;
}

}  // namespace

void read_json(const FieldList& list, const std::string& text, const std::string& origin) {
  FileReader reader{list, origin, {}, {}};
  const json root = parse_json(text, origin, Comments::allow, Exit::usage, &reader.lines);
  NSA_CHECK_USAGE(root.is_object(), "{}: a config is one object {{ ... }}, got {}", origin, spelled(root));
  reader.read_section(root, "");
  for (const FieldRef& f : list.fields) {
    NSA_CHECK_USAGE(!f.doc.is_required || reader.given.count(f.path), "{}: \"{}\" is missing ({}); it has no default",
                    origin, f.path, f.doc.text);
  }
}

OldConfig read_old_json(const FieldList& list, const std::string& text, const std::string& origin) {
  const json root = parse_json(text, origin, Comments::allow, Exit::usage);
  NSA_CHECK_USAGE(root.is_object(), "{}: a config is one object {{ ... }}, got {}", origin, spelled(root));
  OldReader reader{list, {}, {}, {}};
  reader.read_section(root, "");
  reader.finish();
  return reader.old;
}

void apply_override(const FieldList& list, const std::string& assignment) {
  const std::size_t equals = assignment.find('=');
  NSA_CHECK_USAGE(equals != std::string::npos && equals > 0, "\"{}\" is not of the form section.key=value", assignment);
  const std::string path = assignment.substr(0, equals), text = assignment.substr(equals + 1);
  NSA_CHECK_USAGE(is_utf8(assignment), "\"{}...\": the value is not UTF-8", path);
  std::vector<std::string> paths;
  for (const FieldRef& f : list.fields) {
    if (f.path == path) return set_field(f, override_value(f, text), fmt::format("override \"{}\"", assignment));
    paths.push_back(f.path);
  }
  for (const auto& section : list.sections) {
    if (section.path == path)
      fail_usage("override \"{}\": {} is a section ({}); set one of its fields, {}.KEY=value", assignment, path,
                 section.doc, path);
  }
  const std::string closest = did_you_mean(path, paths);
  if (closest.empty()) fail_usage("override \"{}\": there is no field \"{}\"", assignment, path);
  fail_usage("override \"{}\": there is no field \"{}\"; did you mean \"{}\"?", assignment, path, closest);
}

void check_ranges(const FieldList& list, const std::string& prefix) {
  for (FieldRef f : list.fields) {
    f.path = prefix + f.path;
    check_range(f, "");
  }
}

std::string write_json(const FieldList& list) {
  ordered_json root = ordered_json::object();
  for (const FieldRef& f : list.fields) {
    ordered_json* node = &root;
    std::size_t begin = 0;
    for (std::size_t dot; (dot = f.path.find('.', begin)) != std::string::npos; begin = dot + 1)
      node = &(*node)[f.path.substr(begin, dot - begin)];
    (*node)[f.path.substr(begin)] = field_value(f);
  }
  return root.dump(2) + "\n";
}

std::string markdown_reference(const FieldList& list) {
  std::string out = "| field | type | default | allowed | meaning |\n|---|---|---|---|---|\n";
  for (const FieldRef& f : list.fields) {
    const std::string standard = f.doc.is_required ? "required" : fmt::format("`{}`", field_value(f).dump());
    out += fmt::format("| `{}` | {} | {} | {} | {} |\n", f.path, type_of(f), escaped(standard), escaped(allowed(f)),
                       escaped(f.doc.text));
  }
  return out;
}

std::string json_schema(const FieldList& list) {
  ordered_json root = {{"$schema", "https://json-schema.org/draft/2020-12/schema"},
                       {"type", "object"},
                       {"additionalProperties", false},
                       {"properties", ordered_json::object()}};
  const auto require = [](ordered_json& node, const std::string& key) {
    ordered_json& names = node["required"];
    if (std::find(names.begin(), names.end(), key) == names.end()) names.push_back(key);
  };
  for (const FieldRef& f : list.fields) {
    ordered_json* node = &root;
    std::size_t begin = 0;
    for (std::size_t dot; (dot = f.path.find('.', begin)) != std::string::npos; begin = dot + 1) {
      const std::string key = f.path.substr(begin, dot - begin), path = f.path.substr(0, dot);
      if (f.doc.is_required) require(*node, key);
      ordered_json& child = (*node)["properties"][key];
      if (child.is_null()) {
        const auto section = std::find_if(list.sections.begin(), list.sections.end(),
                                          [&](const FieldList::Section& s) { return s.path == path; });
        child = {{"type", "object"},
                 {"description", section->doc},
                 {"additionalProperties", false},
                 {"properties", ordered_json::object()}};
      }
      node = &child;
    }
    const std::string key = f.path.substr(begin);
    if (f.doc.is_required) require(*node, key);
    (*node)["properties"][key] = field_schema(f);
  }
  return root.dump(2) + "\n";
}

std::vector<std::string> differences(const FieldList& a, const FieldList& b) {
  NSA_CHECK(a.fields.size() == b.fields.size(), "differences: lists of {} and {} fields are not of the same struct",
            a.fields.size(), b.fields.size());
  std::vector<std::string> lines;
  for (std::size_t i = 0; i < a.fields.size(); ++i) {
    const ordered_json x = field_value(a.fields[i]), y = field_value(b.fields[i]);
    const auto plain = [](const ordered_json& v) {
      return v.is_string() && !v.get<std::string>().empty() ? v.get<std::string>() : v.dump();
    };
    if (x != y) lines.push_back(fmt::format("{}: {} -> {}", a.fields[i].path, plain(x), plain(y)));
  }
  return lines;
}

std::string did_you_mean(const std::string& name, const std::vector<std::string>& candidates) {
  // From the surest kind of mistake to the least sure: a misspelling, the right key in a wrong section, a misspelt key
  // in a wrong section, a part of the key.
  struct Best {
    std::size_t score = static_cast<std::size_t>(-1);
    std::string name;
    void offer(std::size_t s, const std::string& n) {
      if (s < score) score = s, name = n;
    }
  } misspelt, elsewhere, misspelt_elsewhere, part;
  const std::string last = last_component(name);
  if (last.size() > 100) return "";  // not a name anyone meant
  for (const std::string& candidate : candidates) {
    const std::size_t common = common_components(name, candidate),
                      whole = edit_distance(name.substr(common), candidate.substr(common));
    const std::string other = last_component(candidate);
    const std::size_t key = edit_distance(last, other);
    if (whole <= largest_misspelling(name.substr(common))) misspelt.offer(whole, candidate);
    if (key == 0) elsewhere.offer(whole, candidate);
    if (key <= largest_misspelling(last)) misspelt_elsewhere.offer(key * 1000 + whole, candidate);
    if (last.size() >= 4 &&
        (other.find(last) != std::string::npos || (other.size() >= 4 && last.find(other) != std::string::npos)))
      part.offer(whole, candidate);
  }
  for (const Best& best : {misspelt, elsewhere, misspelt_elsewhere, part}) {
    if (!best.name.empty()) return best.name;
  }
  return "";
}

}  // namespace nsa
