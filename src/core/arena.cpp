#include "core/arena.h"

#include <sys/mman.h>

#include <cerrno>
#include <cstring>

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
  if (slab_) munmap(slab_, capacity_);
}

void Arena::reserve(std::size_t bytes) {
  NSA_CHECK(!slab_ && used_ == 0, "arena: reserve() on an arena in use");
  const std::size_t rounded = bytes ? bytes : kAlign;
  void* p = mmap(nullptr, rounded, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  NSA_CHECK(p != MAP_FAILED,
            "memory: {:.2f} GiB asked, the system refused ({}); a smaller train.micro_batch, data.sequence_length or "
            "train.recompute=block needs less",
            static_cast<double>(bytes) / (1 << 30), std::strerror(errno));
  madvise(p, rounded, MADV_HUGEPAGE);
  slab_ = static_cast<std::byte*>(p);
  capacity_ = rounded;
  reset_peak();
}

Tensor Arena::take(DType dtype, const Shape& dims, Purpose purpose) {
  Tensor t{nullptr, dtype, dims};
  const std::size_t bytes = (t.bytes() + kAlign - 1) / kAlign * kAlign;
  if (slab_) {
    NSA_CHECK(used_ + bytes <= capacity_,
              "arena: the plan reserved {} bytes, {} are needed (a bug: planning and running disagree)", capacity_,
              used_ + bytes);
    t.data = slab_ + used_;
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
