// Which kernels run here: those of the best target that Highway compiles them for and this CPU has. NSA_EXPECT_TARGET
// names one ("AVX2", "AVX3"): where the machine chooses another, the tests fail instead of testing kernels nobody asked
// for (scripts/test_avx512).
#include <cstdint>
#include <cstdlib>
#include <string>

#include "catch.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/test_target.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace nsa {
namespace HWY_NAMESPACE {
namespace {

std::int64_t own_target() { return HWY_TARGET; }

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace nsa
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace nsa {
HWY_EXPORT(own_target);

namespace {

std::string chosen_target() { return hwy::TargetName(HWY_DYNAMIC_DISPATCH(own_target)()); }

}  // namespace
}  // namespace nsa

TEST_CASE("the kernels' target is the CPU's best, and the one NSA_EXPECT_TARGET names") {
  const std::int64_t usable = hwy::SupportedTargets() & HWY_TARGETS;
  REQUIRE(usable != 0);
  CHECK(nsa::chosen_target() == hwy::TargetName(usable & -usable));  // the lowest bit is the best
  if (const char* expected = std::getenv("NSA_EXPECT_TARGET")) CHECK(nsa::chosen_target() == expected);
}
#endif
