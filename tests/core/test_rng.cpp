#include <cmath>
#include <utility>
#include <vector>

#include "catch.h"
#include "core/rng.h"

using namespace nsa;

TEST_CASE("many normal numbers at once are the numbers drawn one by one", "[rng]") {
  const Rng rng(3, "init w");
  std::vector<float> all(100003);
  fill_normal(rng, 0.02, 0, static_cast<std::int64_t>(all.size()), all.data());
  std::size_t different = 0;
  double sum = 0, squares = 0;
  for (std::size_t i = 0; i < all.size(); ++i) {
    const float one = static_cast<float>(0.02 * rng.normal(i));
    if (all[i] != one) {
      ++different;
      REQUIRE(std::fabs(all[i] - one) <= 1.2e-7f * std::fabs(one));
    }
    sum += all[i], squares += static_cast<double>(all[i]) * all[i];
  }
  CHECK(different <= 1);
  CHECK(std::fabs(sum / 100003) < 4 * 0.02 / std::sqrt(100003));
  CHECK(std::sqrt(squares / 100003) == Approx(0.02).epsilon(0.01));

  // Any part of them has the same bits, wherever it begins and ends.
  for (const auto& [first, last] :
       {std::pair<std::int64_t, std::int64_t>{1, 2}, {255, 258}, {77, 1000}, {99999, 100003}, {5, 5}}) {
    std::vector<float> part(static_cast<std::size_t>(last - first) + 1, -1.0f);
    fill_normal(rng, 0.02, first, last, part.data());
    for (std::int64_t i = first; i < last; ++i)
      REQUIRE(part[static_cast<std::size_t>(i - first)] == all[static_cast<std::size_t>(i)]);
    CHECK(part.back() == -1.0f);
  }
}
