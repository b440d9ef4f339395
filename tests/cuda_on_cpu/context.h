// One stack per CUDA thread, switched by hand: what a barrier or a warp instruction waits for is another fiber.
#pragma once

#include <cstddef>

namespace cuda_on_cpu {

struct Context {
  void* stack_pointer = nullptr;
  char* stack = nullptr;  ///< lowest address; the page below it faults
  std::size_t stack_bytes = 0;
  void* asan_frames = nullptr;  ///< AddressSanitizer's own record of this stack
};

/// Maps a stack with a guard page below it; the memory is touched only as it is used and lives until the process ends.
void allocate_stack(Context& context, std::size_t bytes);
/// The next switch into `context` calls entry() on its stack. entry() never returns.
void prepare(Context& context, void (*entry)());
/// Goes on in `to`; returns when something switches back to `from`. A context that will never run again says so.
void switch_context(Context& from, Context& to, bool from_ends = false);
/// The first thing an entry() does. `from` is who switched here first: its stack is learnt from that.
void begin_context(Context& from);

}  // namespace cuda_on_cpu
