// The config machinery. Every config struct has ONE list of its fields:
//
//     void fields(FieldList& v) {
//       v.field("hidden_size", hidden_size, "C, width of the residual stream", Range{1, 1 << 20});
//       v.choice("type", type, kAttentionTypes, "which attention");
//       v.section("attention", attention, "the attention layer");
//     }
//
// Running it flattens a config into a list of references with dotted paths ("model.attention.type"). Everything else is
// a loop over that list: read JSON, write it, apply `section.key=value` overrides, print the reference in the README,
// emit a JSON Schema, name the differences of two configs (DESIGN law 9). Unknown keys ("did you mean"), duplicate
// keys, wrong types and values out of range are errors with the path. `//` comments are allowed.
#pragma once

#include <cstdint>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "core/check.h"

namespace nsa {

/// Closed interval a number must lie in.
struct Range {
  double min = -std::numeric_limits<double>::infinity();
  double max = std::numeric_limits<double>::infinity();
};

/// The spellings of an enum in JSON, in the order of the enum's values from 0.
using Choices = std::vector<std::string>;

/// A field's one-line documentation; required("...") marks a field that has no default.
struct Doc {
  std::string text;
  bool is_required = false;
  Doc(const char* t) : text(t) {}  // NOLINT: a string literal is a Doc
  Doc(std::string t, bool r) : text(std::move(t)), is_required(r) {}
};
inline Doc required(const char* text) { return {text, true}; }

struct FieldRef {
  enum class Kind { integer, real, boolean, text, text_list, choice } kind;
  std::string path;  ///< "train.optimizer.lr"
  void* value;       ///< int64_t*, double*, bool*, string*, vector<string>*, or the enum's int
  Doc doc;
  Range range;
  const Choices* choices = nullptr;

  template <class T>
  T& as() const {
    return *static_cast<T*>(value);
  }
};

class FieldList {
 public:
  struct Section {
    std::string path, doc;
  };
  std::vector<FieldRef> fields;  ///< in the order written
  std::vector<Section> sections;

  void field(const char* name, std::int64_t& value, Doc doc, Range range = {}) {
    push(FieldRef::Kind::integer, name, &value, std::move(doc), range);
  }
  void field(const char* name, double& value, Doc doc, Range range = {}) {
    push(FieldRef::Kind::real, name, &value, std::move(doc), range);
  }
  void field(const char* name, bool& value, Doc doc) { push(FieldRef::Kind::boolean, name, &value, std::move(doc)); }
  void field(const char* name, std::string& value, Doc doc) {
    push(FieldRef::Kind::text, name, &value, std::move(doc));
  }
  void field(const char* name, std::vector<std::string>& value, Doc doc) {
    push(FieldRef::Kind::text_list, name, &value, std::move(doc));
  }
  /// E: an enum of int whose values are 0, 1, ... in the order of `choices`.
  template <class E>
  void choice(const char* name, E& value, const Choices& choices, Doc doc) {
    static_assert(sizeof(E) == sizeof(int));
    push(FieldRef::Kind::choice, name, &value, std::move(doc), {}, &choices);
  }
  template <class S>
  void section(const char* name, S& value, const char* doc) {
    const std::size_t outer = prefix_.size();
    prefix_ += name;
    sections.push_back({prefix_, doc});
    prefix_ += '.';
    value.fields(*this);
    prefix_.resize(outer);
  }

 private:
  void push(FieldRef::Kind kind, const char* name, void* value, Doc doc, Range range = {},
            const Choices* choices = nullptr) {
    fields.push_back({kind, prefix_ + name, value, std::move(doc), range, choices});
  }
  std::string prefix_;
};

/// The list of a whole config (the config outlives the list).
template <class S>
FieldList fields_of(S& config) {
  FieldList list;
  config.fields(list);
  return list;
}

/// Fills the fields from JSON text (// comments allowed). `origin` (a path) names the text in errors. Throws
/// Error(Exit::usage).
void read_json(const FieldList& list, const std::string& text, const std::string& origin);
/// What could not be read of a config that another version wrote.
struct OldConfig {
  std::vector<std::string> notes;    ///< one sentence each: keys and values this version does not know
  std::vector<std::string> unknown;  ///< paths of the fields whose value then is not known; they keep their defaults
};
/// Fills the fields from JSON text as far as it goes: a key without a field, a missing field and a value that is not
/// allowed (any more) are notes, not errors. Throws only when the text is no JSON object.
OldConfig read_old_json(const FieldList& list, const std::string& text, const std::string& origin);
/// One `section.key=value`; a list is comma-separated, an enum its spelling.
void apply_override(const FieldList& list, const std::string& assignment);
/// Every number lies in its range (a config built in code has not been through read_json). `prefix` ("model.")
/// completes the paths in errors.
void check_ranges(const FieldList& list, const std::string& prefix);
/// Every field, nested and indented as in the files under configs/.
std::string write_json(const FieldList& list);
/// Markdown table: field, type, default, range or choices, meaning. Defaults are those of the values behind the list.
std::string markdown_reference(const FieldList& list);
/// JSON Schema 2020-12.
std::string json_schema(const FieldList& list);
/// "model.attention.type: full -> nsa", one line per field that differs. Both lists come from the same struct.
std::vector<std::string> differences(const FieldList& a, const FieldList& b);
/// The closest of `candidates` to `name` if it is close enough to be a misspelling, else "".
std::string did_you_mean(const std::string& name, const std::vector<std::string>& candidates);

}  // namespace nsa
