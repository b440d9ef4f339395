#include "report/series.h"

#include <cmath>

#include "catch.h"
#include "report/synthetic.h"

using namespace nsa;
using namespace nsa::report;

namespace {

std::vector<StepPoint> records(int n, double offset = 0) {
  std::vector<StepPoint> out;
  for (int i = 1; i <= n; ++i) {
    StepPoint s;
    s.step = i;
    s.tokens = 10.0 * i;
    s.seconds = 0.5 * i;
    s.loss = 2 + offset + 1.0 / i;
    s.grad_norm = 1;
    out.push_back(s);
  }
  return out;
}

History make(const std::string& name, const std::string& seed, int n, double offset) {
  History run;
  run.name = name;
  run.seed = seed;
  run.buckets = thin(records(n, offset), kMaxBuckets);
  run.last_step = n;
  return run;
}

}  // namespace

TEST_CASE("thinning keeps every spike, every skip and the ends") {
  auto steps = records(100000);
  steps[54321].loss = 50;
  steps[77777].loss = -3;
  steps[12345].loss = kMissing;
  steps[12345].skipped = true;
  const auto buckets = thin(steps, 1000);
  REQUIRE(buckets.size() <= 1000);
  double high = 0, low = 100;
  std::int64_t skipped = 0;
  for (const Bucket& b : buckets) {
    high = std::max(high, b.loss_max);
    low = std::min(low, b.loss_min);
    skipped += b.skipped;
    REQUIRE(std::isfinite(b.loss));
  }
  CHECK(high == 50);
  CHECK(low == -3);
  CHECK(skipped == 1);
  CHECK(buckets.back().step == 100000);
  CHECK(thin(steps, 200000).size() == 100000);
  CHECK(thin({}, 10).empty());
}

TEST_CASE("names lose their seed, and nothing else") {
  std::string seed;
  CHECK(without_seed("nsa-seed12", &seed) == "nsa");
  CHECK(seed == "12");
  CHECK(without_seed("nsa_s3") == "nsa");
  CHECK(without_seed("a.seed=4") == "a");
  CHECK(without_seed("a-seed-4") == "a");
  CHECK(without_seed("loss3") == "loss3");
  CHECK(without_seed("gpt2") == "gpt2");
  CHECK(without_seed("s3") == "s3");
  CHECK(without_seed("seed3") == "seed3");
  CHECK(without_seed("") == "");
}

TEST_CASE("groups are configurations: seeds, names of logs and threads do not count, everything else does") {
  std::vector<History> runs(4);
  runs[0].name = "a-seed1";
  runs[0].info.config = {{"model.x", "1"}, {"train.seed", "1"}, {"log.name", "q"}, {"threads", "1"}};
  runs[1].name = "a-seed2";
  runs[1].info.config = {{"model.x", "1"}, {"train.seed", "2"}, {"log.name", "r"}, {"threads", "2"}};
  runs[2].name = "a-seed1";
  runs[2].info.config = {{"model.x", "2"}, {"train.seed", "1"}};
  runs[3].name = "other-s1";
  const auto groups = group_runs(runs);
  REQUIRE(groups.size() == 3);
  CHECK(groups[0].runs.size() == 2);
  CHECK(groups[1].name == "a #2");
  CHECK(groups[2].name == "other");
}

TEST_CASE("means, ranges and paired differences over seeds") {
  std::vector<History> runs{make("a-s1", "1", 100, 0), make("a-s2", "2", 120, 0.2), make("b-s2", "2", 100, 0.3),
                            make("b-s1", "1", 100, 0.1), make("b-s9", "9", 100, 5)};
  smooth_runs(runs, 0);
  const auto groups = group_runs(runs);
  REQUIRE(groups.size() == 2);
  const BandCurve mean = mean_curve(groups[0], XAxis::step, 400);
  REQUIRE(mean.x.size() == 100);  // as far as both seeds go
  CHECK(mean.x.back() == 100);
  CHECK(mean.y.back() == Approx(2.11));
  CHECK(mean.low.back() == Approx(2.01));
  CHECK(mean.high.back() == Approx(2.21));
  CHECK(mean_curve(groups[0], XAxis::seconds, 400).x.back() == Approx(50));
  CHECK(pairs_by_seed(groups[0], groups[1]).size() == 2);  // seed 9 has no partner
  const BandCurve d = difference_curve(groups[0], groups[1], 400);
  for (std::size_t i = 0; i < d.x.size(); ++i) {
    REQUIRE(d.y[i] == Approx(0.1));
    REQUIRE(d.low[i] == Approx(0.1));  // both pairs differ by the same
  }
  CHECK(std::isnan(smooth_at(runs[0], XAxis::step, 101)));
  CHECK(smooth_at(runs[0], XAxis::step, 1.5) == Approx((3 + 2.5) / 2));
}

TEST_CASE("the band of a difference is the t interval of the pairs") {
  std::vector<History> runs{make("a-s1", "1", 5, 1.702), make("a-s2", "2", 5, 1.731), make("a-s3", "3", 5, 1.690),
                            make("b-s1", "1", 5, 1.688), make("b-s2", "2", 5, 1.709), make("b-s3", "3", 5, 1.684)};
  smooth_runs(runs, 0);
  const auto groups = group_runs(runs);
  const BandCurve d = difference_curve(groups[0], groups[1], 10);
  REQUIRE(d.x.size() == 5);
  CHECK(d.y[3] == Approx(-0.014).epsilon(1e-9));
  CHECK(d.low[3] == Approx(-0.03387310169400267).epsilon(1e-6));
  CHECK(d.high[3] == Approx(0.005873101694002646).epsilon(1e-6));
}
