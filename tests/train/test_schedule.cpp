// Hand-computed points of every schedule.
#include <cmath>

#include "catch.h"
#include "train/schedule.h"

using namespace nsa;

namespace {

ScheduleConfig make(ScheduleType type, std::int64_t warmup, double min_ratio, double decay_fraction = 0.2) {
  ScheduleConfig c;
  c.type = type;
  c.warmup_steps = warmup;
  c.min_lr_ratio = min_ratio;
  c.decay_fraction = decay_fraction;
  return c;
}

}  // namespace

TEST_CASE("warm-up is linear, learns in the first step and reaches lr in its last") {
  for (ScheduleType type : {ScheduleType::cosine, ScheduleType::linear, ScheduleType::wsd, ScheduleType::constant}) {
    const ScheduleConfig c = make(type, 4, 0.1);
    CHECK(learning_rate(c, 2.0, 0, 100) == 0.5);
    CHECK(learning_rate(c, 2.0, 1, 100) == 1.0);
    CHECK(learning_rate(c, 2.0, 3, 100) == 2.0);
    CHECK(learning_rate(c, 2.0, 4, 100) == 2.0);
  }
}

TEST_CASE("cosine: lr after warm-up, halfway the mean, at the last step min") {
  const ScheduleConfig c = make(ScheduleType::cosine, 2, 0.1);
  const std::int64_t total = 11;  // steps 2..10, the middle is 6
  CHECK(learning_rate(c, 1.0, 2, total) == 1.0);
  CHECK(learning_rate(c, 1.0, 4, total) == Approx(0.1 + 0.9 * 0.5 * (1 + std::sqrt(0.5))).epsilon(1e-14));
  CHECK(learning_rate(c, 1.0, 6, total) == Approx(0.55).epsilon(1e-14));
  CHECK(learning_rate(c, 1.0, 10, total) == Approx(0.1).epsilon(1e-14));
  for (std::int64_t s = 3; s < total; ++s) CHECK(learning_rate(c, 1.0, s, total) < learning_rate(c, 1.0, s - 1, total));
}

TEST_CASE("linear: a line from lr to min") {
  const ScheduleConfig c = make(ScheduleType::linear, 0, 0.0);
  CHECK(learning_rate(c, 1.0, 0, 5) == 1.0);
  CHECK(learning_rate(c, 1.0, 1, 5) == Approx(0.75));
  CHECK(learning_rate(c, 1.0, 4, 5) == 0.0);
}

TEST_CASE("wsd: lr until the last fifth, then a line that ends at min") {
  const ScheduleConfig c = make(ScheduleType::wsd, 2, 0.5, 0.2);
  CHECK(learning_rate(c, 1.0, 15, 20) == 1.0);  // 4 decaying steps: 16..19
  CHECK(learning_rate(c, 1.0, 16, 20) == Approx(0.875));
  CHECK(learning_rate(c, 1.0, 18, 20) == Approx(0.625));
  CHECK(learning_rate(c, 1.0, 19, 20) == Approx(0.5));
  // 0.2 * 35 is not exactly 7 in doubles: still 7 steps.
  CHECK(learning_rate(c, 1.0, 27, 35) == 1.0);
  CHECK(learning_rate(c, 1.0, 28, 35) < 1.0);
  CHECK(learning_rate(make(ScheduleType::wsd, 0, 0.5, 0.0), 1.0, 19, 20) == 1.0);
}

TEST_CASE("constant: lr to the end, whatever min_lr_ratio says") {
  CHECK(learning_rate(make(ScheduleType::constant, 0, 0.1), 3e-4, 0, 10) == 3e-4);
  CHECK(learning_rate(make(ScheduleType::constant, 0, 0.1), 3e-4, 9, 10) == 3e-4);
}

TEST_CASE("runs of one step and runs shorter than the warm-up are finite") {
  for (ScheduleType type : {ScheduleType::cosine, ScheduleType::linear, ScheduleType::wsd, ScheduleType::constant}) {
    CHECK(std::isfinite(learning_rate(make(type, 0, 0.1), 1.0, 0, 1)));
    CHECK(learning_rate(make(type, 10, 0.1), 1.0, 4, 5) == 0.5);
    CHECK(std::isfinite(learning_rate(make(type, 5, 0.1), 1.0, 5, 6)));
  }
}
