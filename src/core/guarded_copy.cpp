#include "core/guarded_copy.h"

#include <setjmp.h>
#include <signal.h>

#include <cstring>

namespace nsa {
namespace {

// A handler reaches nothing but statics. Zero-initialised, so that it may run in a thread that never copied.
thread_local sigjmp_buf* way_out = nullptr;
struct sigaction before;

void on_fault(int signal, siginfo_t* info, void* context) {
  if (way_out) siglongjmp(*way_out, 1);
  if (before.sa_flags & SA_SIGINFO) {
    before.sa_sigaction(signal, info, context);
  } else if (before.sa_handler != SIG_DFL && before.sa_handler != SIG_IGN) {
    before.sa_handler(signal);
  } else {
    ::sigaction(signal, &before, nullptr);  // the faulting instruction runs again, and now ends the process
  }
}

void install() {
  struct sigaction action {};
  action.sa_sigaction = on_fault;
  action.sa_flags = SA_SIGINFO;
  sigemptyset(&action.sa_mask);
  ::sigaction(SIGBUS, &action, &before);
}

}  // namespace

bool guarded_copy(void* to, const void* from, std::size_t bytes) {
  if (bytes == 0) return true;  // of nothing, the pointers may be null
  static const bool installed = (install(), true);
  (void)installed;
  sigjmp_buf here;
  if (sigsetjmp(here, 1) != 0) {  // 1: the signal is blocked while its handler runs, and must not stay so
    way_out = nullptr;
    return false;
  }
  way_out = &here;
  std::memcpy(to, from, bytes);
  asm volatile("" ::: "memory");  // the copy is not moved behind the next line
  way_out = nullptr;
  return true;
}

}  // namespace nsa
