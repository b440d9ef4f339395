// z-scores against hand-computed ones, and a window that survives a checkpoint to the bit.
#include <cmath>
#include <limits>

#include "catch.h"
#include "core/rng.h"
#include "train/outliers.h"

using namespace nsa;

TEST_CASE("the z-score is taken against the values before, not with them") {
  OutlierWindow window(4);
  for (double v : {1.0, 3.0, 1.0, 3.0}) CHECK_FALSE(window.observe(v).has_value());  // mean 2, deviation 1
  CHECK(window.z(7.0).value() == Approx(5.0));
  CHECK(window.z(0.0).value() == Approx(-2.0));
  CHECK(window.observe(7.0).value() == Approx(5.0));
  CHECK(window.values() == std::vector<double>{3.0, 1.0, 3.0, 7.0});  // rolled
  CHECK(window.z(3.5).value() == Approx(0.0));
}

TEST_CASE("no z-score in the first steps, without spread, or for a number that is not finite") {
  OutlierWindow window(128);
  for (std::size_t i = 0; i < OutlierWindow::kFewest; ++i) CHECK_FALSE(window.observe(2.0).has_value());
  CHECK_FALSE(window.z(5.0).has_value());  // all equal
  window.observe(3.0);
  CHECK(window.z(5.0).has_value());
  const auto size = window.values().size();
  CHECK_FALSE(window.observe(std::numeric_limits<double>::quiet_NaN()).has_value());
  CHECK_FALSE(window.observe(std::numeric_limits<double>::infinity()).has_value());
  CHECK(window.values().size() == size);
}

TEST_CASE("a window restored from its values goes on with the same bits") {
  const Rng rng(1, "outliers");
  OutlierWindow whole(20);
  for (std::uint64_t i = 0; i < 50; ++i) whole.observe(rng.normal(i));
  OutlierWindow restored(20, whole.values());
  for (std::uint64_t i = 50; i < 100; ++i) {
    const double v = rng.normal(i);
    CHECK(whole.observe(v).value() == restored.observe(v).value());
  }
}

TEST_CASE("a window made smaller on resume keeps the newest values") {
  OutlierWindow window(2, {1.0, 2.0, 3.0, 4.0});
  CHECK(window.values() == std::vector<double>{3.0, 4.0});
  CHECK_THROWS(OutlierWindow(1));
}
