// AddressSanitizer, whichever compiler: NSA_ASAN is 1 where it is on, and the two macros do something.
#pragma once

#if defined(__SANITIZE_ADDRESS__)
#define NSA_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define NSA_ASAN 1
#endif
#endif
#ifndef NSA_ASAN
#define NSA_ASAN 0
#endif

#if NSA_ASAN
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(p, n) (static_cast<void>(p), static_cast<void>(n))
#define ASAN_UNPOISON_MEMORY_REGION(p, n) (static_cast<void>(p), static_cast<void>(n))
#endif
