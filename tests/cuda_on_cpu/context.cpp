#include "cuda_on_cpu/context.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <new>

#include "cuda_on_cpu/asan.h"

#if NSA_ASAN
#include <sanitizer/common_interface_defs.h>
#endif

#if defined(__x86_64__)
// Pushes what the ABI lets a callee keep, swaps stacks, pops. swapcontext would do two system calls each time.
asm(R"(
.text
.type cuda_on_cpu_swap_stacks, @function
cuda_on_cpu_swap_stacks:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size cuda_on_cpu_swap_stacks, . - cuda_on_cpu_swap_stacks
)");
#elif defined(__aarch64__)
asm(R"(
.text
.type cuda_on_cpu_swap_stacks, %function
cuda_on_cpu_swap_stacks:
  sub sp, sp, #160
  stp x19, x20, [sp, #0]
  stp x21, x22, [sp, #16]
  stp x23, x24, [sp, #32]
  stp x25, x26, [sp, #48]
  stp x27, x28, [sp, #64]
  stp x29, x30, [sp, #80]
  stp d8, d9, [sp, #96]
  stp d10, d11, [sp, #112]
  stp d12, d13, [sp, #128]
  stp d14, d15, [sp, #144]
  mov x9, sp
  str x9, [x0]
  mov sp, x1
  ldp x19, x20, [sp, #0]
  ldp x21, x22, [sp, #16]
  ldp x23, x24, [sp, #32]
  ldp x25, x26, [sp, #48]
  ldp x27, x28, [sp, #64]
  ldp x29, x30, [sp, #80]
  ldp d8, d9, [sp, #96]
  ldp d10, d11, [sp, #112]
  ldp d12, d13, [sp, #128]
  ldp d14, d15, [sp, #144]
  add sp, sp, #160
  ret
.size cuda_on_cpu_swap_stacks, . - cuda_on_cpu_swap_stacks
)");
#else
#error "cuda_on_cpu: write swap_stacks for this CPU"
#endif
extern "C" void cuda_on_cpu_swap_stacks(void** save, void* load);

namespace cuda_on_cpu {

void allocate_stack(Context& context, std::size_t bytes) {
  const std::size_t page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
  void* memory =
      mmap(nullptr, bytes + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED || mprotect(memory, page, PROT_NONE) != 0) throw std::bad_alloc();
  context.stack = static_cast<char*>(memory) + page;
  context.stack_bytes = bytes;
}

void prepare(Context& context, void (*entry)()) {
#if NSA_ASAN
  __asan_unpoison_memory_region(context.stack, context.stack_bytes);  // frames that a fault left behind
  context.asan_frames = nullptr;
#endif
  // Neighbouring stacks would share cache sets: their tops are spread.
  const std::uintptr_t colour = reinterpret_cast<std::uintptr_t>(context.stack) / context.stack_bytes % 16 * 192;
  auto** top = reinterpret_cast<void**>(context.stack + context.stack_bytes - 64 - colour);
#if defined(__x86_64__)
  *--top = nullptr;  // entry's return address: there is none; also keeps the ABI's alignment
  *--top = reinterpret_cast<void*>(entry);
  for (int saved = 0; saved < 6; ++saved) *--top = nullptr;
#else
  for (int saved = 0; saved < 20; ++saved) *--top = nullptr;
  top[11] = reinterpret_cast<void*>(entry);  // x30
#endif
  context.stack_pointer = top;
}

void switch_context(Context& from, Context& to, bool from_ends) {
#if NSA_ASAN
  __sanitizer_start_switch_fiber(from_ends ? nullptr : &from.asan_frames, to.stack, to.stack_bytes);
#else
  (void)from_ends;
#endif
  cuda_on_cpu_swap_stacks(&from.stack_pointer, to.stack_pointer);
#if NSA_ASAN
  __sanitizer_finish_switch_fiber(from.asan_frames, nullptr, nullptr);
#endif
}

void begin_context(Context& from) {
#if NSA_ASAN
  const void* stack = nullptr;
  std::size_t bytes = 0;
  __sanitizer_finish_switch_fiber(nullptr, &stack, &bytes);
  if (!from.stack) from.stack = static_cast<char*>(const_cast<void*>(stack)), from.stack_bytes = bytes;
#else
  (void)from;
#endif
}

}  // namespace cuda_on_cpu
