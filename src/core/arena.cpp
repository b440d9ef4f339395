#include "core/arena.h"

namespace nsa {

const char* name_of(Purpose purpose) {
  switch (purpose) {
    case Purpose::weights: return "weights";
    case Purpose::gradients: return "gradients";
    case Purpose::optimizer: return "optimizer";
    case Purpose::activations: return "activations";
    case Purpose::logits: return "logits";
    case Purpose::scratch: return "scratch";
    case Purpose::count: break;
  }
  return "?";
}

Arena::~Arena() {
  if (slab_) release(where_, slab_, capacity_);
}

void Arena::reserve(std::size_t bytes, Where where) {
  NSA_CHECK(!slab_ && used_ == 0, "arena: reserve() on an arena in use");
  capacity_ = bytes ? bytes : kAlign;
  where_ = where;
  slab_ = allocate(where, capacity_);
  reset_peak();
}

Tensor Arena::take(DType dtype, const Shape& dims, Purpose purpose) {
  Tensor t{nullptr, dtype, dims};
  const std::size_t bytes = (t.bytes() + kAlign - 1) / kAlign * kAlign;
  if (slab_) {
    NSA_CHECK(used_ + bytes <= capacity_,
              "arena: the plan reserved {} bytes, {} are needed (a bug: planning and running disagree)", capacity_,
              used_ + bytes);
    t.data = static_cast<char*>(slab_) + used_;
    t.where = where_;
  }
  used_ += bytes;
  now_[static_cast<std::size_t>(purpose)] += bytes;
  if (used_ > peak_) {
    peak_ = used_;
    at_peak_ = now_;
  }
  return t;
}

void Arena::reset_peak() {
  peak_ = used_;
  at_peak_ = now_;
}

}  // namespace nsa
