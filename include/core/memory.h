// Memory of a place. The arenas (core/arena.h) take it once, at the start of a run; nothing else takes device memory.
#pragma once

#include <cstddef>

#include "core/where.h"

namespace nsa {

/// Every tensor starts at a multiple of so many bytes: what 128-bit accesses, TMA and whole cache lines ask for.
constexpr std::size_t kAlign = 256;

/// `bytes` of uninitialised memory at a multiple of kAlign: whatever it holds, it need not be zeros (on the fake device
/// it is NaNs). Throws with the bytes asked for and the bytes that are free. `bytes` is at least 1.
void* allocate(Where where, std::size_t bytes);
/// What allocate() gave, with the same `where` and `bytes`.
void release(Where where, void* memory, std::size_t bytes);
/// Bytes of that place's memory that can be taken now; 0 when unknown.
std::size_t available_memory(Where where);
/// Throws one sentence when fewer than `bytes` are available. With overcommit the system says yes to anything and kills
/// the process later, in the middle of a step: so ask before mapping.
void check_available(Where where, std::size_t bytes);

}  // namespace nsa
