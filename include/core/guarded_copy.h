// Reading a mapped file that may become shorter meanwhile (truncated, or on a disk that fails): the kernel answers with
// SIGBUS, which here is a return value.
#pragma once

#include <cstddef>

namespace nsa {

/// memcpy out of a mapping. False when a page of it is no longer there; `to` may then be partly written. Any other
/// SIGBUS goes where it went before. Several threads may copy at once.
[[nodiscard]] bool guarded_copy(void* to, const void* from, std::size_t bytes);

}  // namespace nsa
