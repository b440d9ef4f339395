// What a call threw, as text: "" when it did not throw.
#pragma once

#include <string>

#include "core/check.h"

template <class F>
std::string error_of(F&& f) {
  try {
    f();
  } catch (const nsa::Error& error) {
    return error.what();
  }
  return "";
}

inline bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }
