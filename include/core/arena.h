// Memory. Two arenas live in a Device: parameters (weights, gradients, optimizer state) and work (activations and
// scratch). An arena is one slab with a stack discipline: take() bumps a pointer, ArenaScope gives back everything
// taken inside it. A *planning* arena has no memory and only counts; running the same code over it gives the exact
// bytes a run needs, and reserve() then allocates them once.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "core/memory.h"
#include "core/tensor.h"

namespace nsa {

/// What bytes are for, in the memory table of `nsa plan` and of the start-up log.
enum class Purpose : std::uint8_t { weights, gradients, optimizer, activations, logits, scratch, count };
const char* name_of(Purpose purpose);

class Arena {
 public:
  Arena() = default;
  ~Arena();
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;

  /// Allocates the slab; its contents are whatever is there. Throws with the bytes asked and the bytes available. Only
  /// on an empty arena.
  void reserve(std::size_t bytes, Where where = Where::cpu);
  /// True while the arena has no slab: tensors then have data == nullptr and nothing may be computed with them.
  bool planning() const { return slab_ == nullptr; }

  /// `dims` elements, uninitialised. Throws when the slab is too small: that is a bug in the plan, and says so.
  Tensor take(DType dtype, const Shape& dims, Purpose purpose);

  std::size_t used() const { return used_; }
  std::size_t peak() const { return peak_; }
  std::size_t capacity() const { return capacity_; }
  /// Bytes by purpose at the moment the peak was reached; they add up to peak().
  const std::array<std::size_t, static_cast<std::size_t>(Purpose::count)>& by_purpose_at_peak() const {
    return at_peak_;
  }
  /// Forgets peak (used after planning, before the run, to compare both).
  void reset_peak();

 private:
  friend class ArenaScope;
  void* slab_ = nullptr;
  Where where_ = Where::cpu;
  std::size_t capacity_ = 0, used_ = 0, peak_ = 0;
  std::array<std::size_t, static_cast<std::size_t>(Purpose::count)> now_{}, at_peak_{};
};

/// Everything taken from the arena between construction and destruction is given back at destruction.
class ArenaScope {
 public:
  explicit ArenaScope(Arena& arena) : arena_(arena), used_(arena.used_), now_(arena.now_) {}
  ~ArenaScope() {
    arena_.used_ = used_;
    arena_.now_ = now_;
  }
  ArenaScope(const ArenaScope&) = delete;
  ArenaScope& operator=(const ArenaScope&) = delete;

 private:
  Arena& arena_;
  std::size_t used_;
  std::array<std::size_t, static_cast<std::size_t>(Purpose::count)> now_;
};

}  // namespace nsa
