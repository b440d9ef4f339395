// The only catch of a program (DESIGN law 4): an error is one sentence on stderr and an exit code.
#pragma once

#include <cstdio>
#include <exception>
#include <new>
#include <utility>

#include "core/check.h"

namespace nsa {

/// Runs `body`, which returns the exit code.
template <class F>
int run_main(F&& body) {
  try {
    return std::forward<F>(body)();
  } catch (const Error& e) {
    std::fprintf(stderr, "error: %s\n", e.what());
    return static_cast<int>(e.code());
  } catch (const std::bad_alloc&) {
    std::fprintf(stderr, "error: out of memory\n");
  } catch (const std::exception& e) {
    std::fprintf(stderr, "error: %s\n", e.what());
  }
  return static_cast<int>(Exit::error);
}

}  // namespace nsa
