// The place on which the tests of whole programs run: the CPU, or with NSA_TEST_DEVICE=fake a device that host code
// cannot reach into. ctest runs them on both.
#pragma once

#include <cstdlib>
#include <string>

#include "core/check.h"
#include "core/where.h"

namespace nsa::test {

/// As the config field `device` spells it.
inline std::string device_under_test() {
  const char* name = std::getenv("NSA_TEST_DEVICE");
  return name && *name ? name : "cpu";
}

inline Where place_under_test() {
  const std::string name = device_under_test();
  NSA_CHECK(name == "cpu" || name == "fake", "NSA_TEST_DEVICE is {}, expected cpu or fake", name);
  return name == "fake" ? Where::fake : Where::cpu;
}

}  // namespace nsa::test
