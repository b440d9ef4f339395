// One field as JSON: spelled, read with all its checks, written, described. What fields.cpp loops over.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "core/fields.h"
#include "core/json.h"

#define NSA_CHECK_USAGE(condition, ...) \
  do {                                  \
    if (!(condition)) [[unlikely]]      \
      ::nsa::fail_usage(__VA_ARGS__);   \
  } while (0)

namespace nsa {

/// A JSON value as an error message shows it: `the string "abc"`, `1.5`, `an object`.
std::string spelled(const nlohmann::json& value);
/// "12", "1e4", ".5" as a number; anything else stays a string.
nlohmann::json number_in(const std::string& text);
/// The value behind the field lies in its range. `where`, unless empty, begins the error.
void check_range(const FieldRef& f, const std::string& where);
/// Checks type and range and stores.
void set_field(const FieldRef& f, const nlohmann::json& value, const std::string& where);
nlohmann::ordered_json field_value(const FieldRef& f);
/// "integer", "list of strings", ...
std::string type_of(const FieldRef& f);
/// "1 .. 4096", "at least 1", "`full`, `nsa`", or "" when everything is.
std::string allowed(const FieldRef& f);
nlohmann::ordered_json field_schema(const FieldRef& f);

}  // namespace nsa
