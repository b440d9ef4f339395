#include "core/fields_json.h"

#include <charconv>
#include <cmath>
#include <cstring>

namespace nsa {

using nlohmann::json;
using nlohmann::ordered_json;
using Kind = FieldRef::Kind;

namespace {

constexpr double kExact = 9007199254740992.0;  // 2^53: above it a double may not be the integer that was written

/// 5 -> "5", 16777216 -> "16777216", 0.5 -> "0.5", 1e18 -> "1e18"
std::string number(double v) {
  return std::fabs(v) < 1e15 && v == std::floor(v) ? fmt::format("{:.0f}", v) : fmt::format("{}", v);
}

[[noreturn]] void fail_type(const FieldRef& f, const json& value, const std::string& where,
                            const std::string& expected) {
  const bool wants_number = f.kind == Kind::integer || f.kind == Kind::real;
  const bool quoted = value.is_string() && ((wants_number && number_in(value.get<std::string>()).is_number()) ||
                                            (f.kind == Kind::boolean && (value == "true" || value == "false")));
  fail_usage("{}: {} ({}) must be {}, got {}{}", where, f.path, f.doc.text, expected, spelled(value),
             quoted ? "; write it without quotes" : "");
}

[[noreturn]] void fail_range(const FieldRef& f, const json& value, const std::string& where) {
  fail_usage("{}{}{} ({}) must lie in {}, got {}", where, where.empty() ? "" : ": ", f.path, f.doc.text, allowed(f),
             value.dump());
}

/// 1e4 and 2.0 are integers too, as long as the double holds exactly what was written.
std::int64_t integer_in(const FieldRef& f, const json& value, const std::string& where) {
  if (value.is_number_unsigned()) {
    if (value.get<std::uint64_t>() > static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max()))
      fail_range(f, value, where);
    return value.get<std::int64_t>();
  }
  if (value.is_number_integer()) return value.get<std::int64_t>();
  if (!value.is_number_float()) fail_type(f, value, where, "an integer");
  const double v = value.get<double>();
  if (v != std::floor(v)) fail_type(f, value, where, "an integer");
  if (v < f.range.min || v > f.range.max) fail_range(f, value, where);
  if (std::fabs(v) > kExact) fail_type(f, value, where, "an integer written with all its digits");
  return static_cast<std::int64_t>(v);
}

int choice_in(const FieldRef& f, const json& value, const std::string& where) {
  const Choices& choices = *f.choices;
  if (!value.is_string()) fail_type(f, value, where, "one of " + allowed(f));
  for (std::size_t i = 0; i < choices.size(); ++i) {
    if (value == choices[i]) return static_cast<int>(i);
  }
  const std::string closest = did_you_mean(value.get<std::string>(), choices);
  fail_usage("{}: {} must be one of {}, got {}{}", where, f.path, allowed(f), spelled(value),
             closest.empty() ? "" : fmt::format("; did you mean \"{}\"?", closest));
}

}  // namespace

std::string spelled(const json& value) {
  if (value.is_object()) return "an object";
  if (value.is_array()) return "a list";
  const std::string text = value.dump(-1, ' ', false, json::error_handler_t::replace);
  const std::string shown = text.size() <= 80 ? text : text.substr(0, 77) + "...";
  return value.is_string() ? "the string " + shown : shown;
}

json number_in(const std::string& text) {
  const char *begin = text.data(), *end = begin + text.size();
  std::int64_t i = 0;
  std::uint64_t u = 0;
  double d = 0;
  if (const auto r = std::from_chars(begin, end, i); r.ec == std::errc() && r.ptr == end) return i;
  if (const auto r = std::from_chars(begin, end, u); r.ec == std::errc() && r.ptr == end) return u;
  if (const auto r = std::from_chars(begin, end, d); r.ec == std::errc() && r.ptr == end && std::isfinite(d)) return d;
  return text;
}

void check_range(const FieldRef& f, const std::string& where) {
  if (f.kind != Kind::integer && f.kind != Kind::real) return;
  const double v = f.kind == Kind::integer ? static_cast<double>(f.as<std::int64_t>()) : f.as<double>();
  if (!(v >= f.range.min && v <= f.range.max))
    fail_range(f, f.kind == Kind::integer ? json(f.as<std::int64_t>()) : json(v), where);
}

void set_field(const FieldRef& f, const json& value, const std::string& where) {
  switch (f.kind) {
    case Kind::integer: {
      const std::int64_t v = integer_in(f, value, where);
      if (static_cast<double>(v) < f.range.min || static_cast<double>(v) > f.range.max) fail_range(f, value, where);
      f.as<std::int64_t>() = v;
      return;
    }
    case Kind::real: {
      if (!value.is_number()) fail_type(f, value, where, "a number");
      const double v = value.get<double>();
      if (!(v >= f.range.min && v <= f.range.max)) fail_range(f, value, where);
      f.as<double>() = v;
      return;
    }
    case Kind::boolean:
      if (!value.is_boolean()) fail_type(f, value, where, "true or false");
      f.as<bool>() = value.get<bool>();
      return;
    case Kind::text:
      if (!value.is_string()) fail_type(f, value, where, "a string");
      f.as<std::string>() = value.get<std::string>();
      return;
    case Kind::text_list:
      if (!value.is_array()) fail_type(f, value, where, "a list of strings [\"...\"]");
      for (const json& item : value) {
        if (!item.is_string()) fail_type(f, item, where, "a list of strings [\"...\"]");
      }
      f.as<std::vector<std::string>>() = value.get<std::vector<std::string>>();
      return;
    case Kind::choice: {
      const int v = choice_in(f, value, where);
      std::memcpy(f.value, &v, sizeof v);  // the object is an enum, not an int
      return;
    }
  }
}

ordered_json field_value(const FieldRef& f) {
  switch (f.kind) {
    case Kind::integer: return f.as<std::int64_t>();
    case Kind::real: return f.as<double>();
    case Kind::boolean: return f.as<bool>();
    case Kind::text: return f.as<std::string>();
    case Kind::text_list: return f.as<std::vector<std::string>>();
    case Kind::choice: break;
  }
  int v = 0;
  std::memcpy(&v, f.value, sizeof v);
  return f.choices->at(static_cast<std::size_t>(v));
}

std::string type_of(const FieldRef& f) {
  switch (f.kind) {
    case Kind::integer: return "integer";
    case Kind::real: return "number";
    case Kind::boolean: return "true or false";
    case Kind::text: return "string";
    case Kind::text_list: return "list of strings";
    case Kind::choice: break;
  }
  return "choice";
}

std::string allowed(const FieldRef& f) {
  if (f.kind == Kind::choice) {
    std::string all;
    for (const std::string& choice : *f.choices) all += fmt::format("{}\"{}\"", all.empty() ? "" : ", ", choice);
    return all;
  }
  const bool low = std::isfinite(f.range.min), high = std::isfinite(f.range.max);
  if (low && high) return fmt::format("{} .. {}", number(f.range.min), number(f.range.max));
  return low ? "at least " + number(f.range.min) : high ? "at most " + number(f.range.max) : "";
}

ordered_json field_schema(const FieldRef& f) {
  ordered_json schema = ordered_json::object();
  switch (f.kind) {
    case Kind::integer: schema["type"] = "integer"; break;
    case Kind::real: schema["type"] = "number"; break;
    case Kind::boolean: schema["type"] = "boolean"; break;
    case Kind::text: schema["type"] = "string"; break;
    case Kind::text_list: schema["type"] = "array", schema["items"] = {{"type", "string"}}; break;
    case Kind::choice: schema["enum"] = *f.choices; break;
  }
  schema["description"] = f.doc.text;
  if (!f.doc.is_required) schema["default"] = field_value(f);
  const auto bound = [&](const char* name, double v) {
    if (!std::isfinite(v)) return;
    if (v == std::floor(v) && std::fabs(v) <= kExact)
      schema[name] = static_cast<std::int64_t>(v);
    else
      schema[name] = v;
  };
  bound("minimum", f.range.min);
  bound("maximum", f.range.max);
  return schema;
}

}  // namespace nsa
