#include "ops/cpu/convert.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/cpu/convert.cpp"
#include <hwy/foreach_target.h>

#include "ops/cpu/row-inl.h"

HWY_BEFORE_NAMESPACE();
namespace nsa {
namespace HWY_NAMESPACE {
namespace {

template <class To, class From>
HWY_INLINE void convert_range(To* y, const From* x, std::int64_t n) {
  for_row(n, [&](auto at, std::int64_t i) HWY_ATTR { at.store(at.load(x + i), y + i); });
}
void narrow(bf16* y, const float* x, std::int64_t n) { convert_range(y, x, n); }
void widen(float* y, const bf16* x, std::int64_t n) { convert_range(y, x, n); }

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace nsa
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace nsa {
HWY_EXPORT(narrow);
HWY_EXPORT(widen);

namespace cpu {

void convert(float* y, const bf16* x, std::int64_t n) { HWY_DYNAMIC_DISPATCH(widen)(y, x, n); }
void convert(bf16* y, const float* x, std::int64_t n) { HWY_DYNAMIC_DISPATCH(narrow)(y, x, n); }

}  // namespace cpu
}  // namespace nsa
#endif
