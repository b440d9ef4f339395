// A launch on the emulated machine: returns when every thread of the grid is done, throws a Fault for the first defect.
#pragma once

#include <functional>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>

#include "cuda_on_cpu/builtins.h"
#include "cuda_on_cpu/runtime.h"

namespace cuda_on_cpu {

void run_grid(const std::string& name, dim3 grid, dim3 block, std::size_t dynamic_shared, std::function<void()> body);
/// Ends the launch with this Fault; the current thread's stack is left as it is.
[[noreturn]] void abandon_thread(const std::string& failure);

}  // namespace cuda_on_cpu

namespace nsa::cuda {

template <class... Parameters, class... Arguments>
void launch(const char* name, void (*kernel)(Parameters...), dim3 grid, dim3 block, std::size_t shared, cudaStream_t,
            Arguments&&... arguments) {
  // By value, as a GPU copies them.
  const std::tuple<std::decay_t<Parameters>...> copies(std::forward<Arguments>(arguments)...);
  cuda_on_cpu::run_grid(name, grid, block, shared, [&] { std::apply(kernel, copies); });
}

}  // namespace nsa::cuda
