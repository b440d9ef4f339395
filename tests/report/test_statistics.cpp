// Constants computed with scipy 1.x: scipy.stats.t.ppf / cdf, scipy.special.betainc, scipy.stats.ttest_rel(b,
// a).confidence_interval(0.95).
#include "report/statistics.h"

#include <cmath>
#include <limits>

#include "catch.h"
#include "core/median.h"

using namespace nsa;
using namespace nsa::report;

namespace {
const double kNan = std::numeric_limits<double>::quiet_NaN();
}

TEST_CASE("incomplete beta agrees with scipy") {
  CHECK(incomplete_beta(0.5, 0.5, 0.3) == Approx(0.36901011956554536).epsilon(1e-12));
  CHECK(incomplete_beta(2, 3, 0.5) == Approx(0.6875).epsilon(1e-12));
  CHECK(incomplete_beta(15, 0.5, 0.99) == Approx(0.5860649647763355).epsilon(1e-12));
  CHECK(incomplete_beta(1, 0.5, 0.01) == Approx(0.005012562893380045).epsilon(1e-12));
  CHECK(incomplete_beta(3, 4, 0) == 0);
  CHECK(incomplete_beta(3, 4, 1) == 1);
  CHECK_THROWS(incomplete_beta(0, 1, 0.5));
}

TEST_CASE("Student t agrees with scipy") {
  struct {
    double df, q60, q90, q95, q975, q995, q9999;
  } const rows[] = {{1, 0.32491969623290634, 3.0776835371752544, 6.313751514675037, 12.706204736174694,
                     63.656741162871526, 3183.098757118502},
                    {2, 0.2886751345948128, 1.8856180831641272, 2.9199855803537242, 4.302652729749462,
                     9.924843200918287, 70.70007107496818},
                    {3, 0.2766706623326898, 1.637744353696209, 2.3533634348018233, 3.1824463052837078,
                     5.840909309733355, 22.203742273205},
                    {4, 0.2707222947075976, 1.533206274058944, 2.1318467863266495, 2.7764451051977934,
                     4.604094871349992, 13.033671720896821},
                    {9, 0.260955336473911, 1.3830287383966329, 1.833112932656237, 2.262157162798205, 3.249835541592126,
                     6.010132129081531},
                    {30, 0.2556053649519128, 1.3104150253913955, 1.697260886593957, 2.0422724563012378,
                     2.7499956535672254, 4.23398595727206},
                    {1000, 0.25341451583949876, 1.2823987214609247, 1.6463788172854643, 1.9623390808264083,
                     2.580754698065951, 3.7328516045753966}};
  for (const auto& r : rows) {
    CHECK(student_t_quantile(0.6, r.df) == Approx(r.q60).epsilon(1e-9));
    CHECK(student_t_quantile(0.9, r.df) == Approx(r.q90).epsilon(1e-9));
    CHECK(student_t_quantile(0.95, r.df) == Approx(r.q95).epsilon(1e-9));
    CHECK(student_t_quantile(0.975, r.df) == Approx(r.q975).epsilon(1e-9));
    CHECK(student_t_quantile(0.995, r.df) == Approx(r.q995).epsilon(1e-9));
    CHECK(student_t_quantile(0.9999, r.df) == Approx(r.q9999).epsilon(1e-9));
    CHECK(student_t_quantile(0.025, r.df) == Approx(-r.q975).epsilon(1e-9));
  }
  CHECK(student_t_cdf(0.5, 1) == Approx(0.6475836176504333).epsilon(1e-12));
  CHECK(student_t_cdf(4.3, 2) == Approx(0.9749714229414542).epsilon(1e-12));
  CHECK(student_t_cdf(-1.2, 7) == Approx(0.1345859684136033).epsilon(1e-12));
  CHECK(student_t_cdf(0, 5) == Approx(0.5));
}

TEST_CASE("paired difference over three seeds, within noise") {
  const double a[] = {1.702, 1.731, 1.690}, b[] = {1.688, 1.709, 1.684};
  const PairedDifference d = paired_difference(a, b);
  CHECK(d.pairs == 3);
  CHECK(d.mean == Approx(-0.014).epsilon(1e-12));
  CHECK(d.std_error == Approx(0.004618802153517011).epsilon(1e-9));
  CHECK(d.low == Approx(-0.03387310169400267).epsilon(1e-9));
  CHECK(d.high == Approx(0.005873101694002646).epsilon(1e-9));
  CHECK(d.within_noise());
  CHECK(d.verdict() == "within noise");
}

TEST_CASE("paired difference over five seeds, and at another confidence") {
  const double a[] = {1.702, 1.731, 1.690, 1.75, 1.72}, b[] = {1.712, 1.709, 1.684, 1.76, 1.70};
  const PairedDifference d = paired_difference(a, b);
  CHECK(d.low == Approx(-0.024867808901170754).epsilon(1e-9));
  CHECK(d.high == Approx(0.013667808901170746).epsilon(1e-9));
  CHECK(paired_difference(a, b, 0.5).high < d.high);
}

TEST_CASE("a difference far beyond its spread is not noise, and its sign is named") {
  const double a[] = {1.70, 1.73, 1.69}, b[] = {1.60, 1.631, 1.59};
  CHECK(paired_difference(a, b).verdict() == "lower");
  CHECK(paired_difference(b, a).verdict() == "higher");
}

TEST_CASE("the interval touching 0 counts as within noise; identical differences have no spread") {
  const double a[] = {1, 2, 3}, same[] = {1, 2, 3}, shifted[] = {1.5, 2.5, 3.5};
  CHECK(paired_difference(a, same).verdict() == "within noise");
  CHECK(paired_difference(a, shifted).verdict() == "higher");
  CHECK(paired_difference(a, shifted).std_error == 0);
}

TEST_CASE("one seed says nothing about noise; NaN pairs are left out") {
  const double a[] = {1.7, kNan, 2}, b[] = {1.6, 2, kNan};
  const PairedDifference d = paired_difference(a, b);
  CHECK(d.pairs == 1);
  CHECK(d.mean == Approx(-0.1));
  CHECK(d.base == Approx(1.7));
  CHECK(std::isnan(d.low));
  CHECK_FALSE(d.within_noise());
  CHECK(d.verdict() == "noise unknown");
  const double none[] = {kNan};
  CHECK(paired_difference(none, none).pairs == 0);
  CHECK(std::isnan(paired_difference(none, none).mean));
}

TEST_CASE("bias-corrected EMA by hand") {
  // half-life 1: keep = 1/2. weights 1/2; 1/4 + 1/2; ...
  const double at[] = {1, 2, 3}, x[] = {4, 2, 6};
  const auto y = ema(at, x, 1);
  CHECK(y[0] == Approx(4));
  CHECK(y[1] == Approx((4 * 0.25 + 2 * 0.5) / 0.75));
  CHECK(y[2] == Approx((4 * 0.125 + 2 * 0.25 + 6 * 0.5) / 0.875));
}

TEST_CASE("EMA: gaps decay by their length, NaN is passed over, a constant stays itself, half-life 0 changes nothing") {
  const double at[] = {1, 4}, x[] = {4, 2};
  CHECK(ema(at, x, 1)[1] == Approx((4 * 0.5 / 8 + 2 * 7.0 / 8) / (0.5 / 8 + 7.0 / 8)));
  const double steps[] = {1, 2, 3, 4}, holes[] = {kNan, 3, kNan, 3};
  const auto y = ema(steps, holes, 10);
  CHECK(std::isnan(y[0]));
  CHECK(y[1] == Approx(3));
  CHECK(y[2] == Approx(3));
  CHECK(y[3] == Approx(3));
  CHECK(ema(at, x, 0)[1] == 2);
  CHECK(ema({}, {}, 5).empty());
}

TEST_CASE("mean, deviation and median pass over what is not finite") {
  const double v[] = {2, kNan, 4, 9};
  CHECK(mean_spread(v).n == 3);
  CHECK(mean_spread(v).mean == Approx(5));
  CHECK(mean_spread(v).deviation == Approx(std::sqrt(13.0)));
  CHECK(median({3, kNan, 1, 2}) == 2);
  CHECK(median({4, 1, 2, 3}) == Approx(2.5));
  CHECK(std::isnan(median({})));
}
