#include "report/svg.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <regex>

#include "catch.h"
#include "report/palette.h"

using namespace nsa;
using namespace nsa::report;

namespace {

std::vector<std::string> texts(const std::vector<Tick>& ticks) {
  std::vector<std::string> out;
  for (const Tick& t : ticks) out.push_back(t.text);
  return out;
}

std::vector<double> numbers(const std::string& svg, const std::string& pattern) {
  std::vector<double> out;
  const std::regex regex(pattern);
  for (auto it = std::sregex_iterator(svg.begin(), svg.end(), regex); it != std::sregex_iterator(); ++it)
    out.push_back(std::stod((*it)[1]));
  return out;
}

Layer curve(std::vector<double> y, const std::string& name = "a") {
  Layer l;
  l.name = l.end_label = name;
  for (std::size_t i = 0; i < y.size(); ++i) l.x.push_back(static_cast<double>(i));
  l.y = std::move(y);
  return l;
}

Chart chart_of(std::vector<Layer> layers, double x_max, double y_max) {
  Chart chart;
  chart.id = "t";
  chart.x.max = x_max;
  chart.y = {"loss", Unit::loss, 0, y_max};
  chart.layers = std::move(layers);
  return chart;
}

}  // namespace

TEST_CASE("ticks are round and share a unit") {
  CHECK(texts(nice_ticks(0, 2000, 4, Unit::count)) == std::vector<std::string>{"0", "500", "1000", "1500", "2000"});
  CHECK(texts(nice_ticks(0, 1e6, 4, Unit::count)) ==
        std::vector<std::string>{"0", "0.2M", "0.4M", "0.6M", "0.8M", "1.0M"});
  CHECK(texts(nice_ticks(-0.02, 0.01, 3, Unit::loss)) ==
        std::vector<std::string>{"\u22120.02", "\u22120.01", "0", "0.01"});
  CHECK(texts(nice_ticks(0, 480, 4, Unit::seconds)) ==
        std::vector<std::string>{"0", "2 min", "4 min", "6 min", "8 min"});
  CHECK(texts(nice_ticks(0, 5 * 3600, 5, Unit::seconds)) ==
        std::vector<std::string>{"0", "1 h", "2 h", "3 h", "4 h", "5 h"});
  CHECK(texts(nice_ticks(3, 3, 4, Unit::plain)).size() == 1);
  for (const double top : {1e-7, 0.003, 0.9, 7., 12345., 8e9, 3e14}) {
    const auto ticks = nice_ticks(0, top, 5, Unit::count);
    CHECK(ticks.size() >= 3);
    CHECK(ticks.size() <= 9);
  }
  CHECK(texts(log_ticks(0.4, 30, 6)) == std::vector<std::string>{"0.5", "1", "2", "5", "10", "20"});
  CHECK(log_ticks(1e-8, 1e8, 5).size() <= 8);
}

TEST_CASE("numbers as people read them") {
  CHECK(format_value(-1.23456, Unit::loss) == "\u22121.2346");
  CHECK(format_signed(0.5, Unit::loss, 2) == "+0.50");
  CHECK(format_signed(-0.01234, Unit::share) == "\u22121.23 %");
  CHECK(format_value(12345, Unit::whole) == "12,345");
  CHECK(format_value(9.8e6, Unit::flops) == "9.80 MFLOP");
  CHECK(format_value(41.26, Unit::milliseconds) == "41.3 ms");
  CHECK(format_value(std::numeric_limits<double>::quiet_NaN(), Unit::loss) == "\u2013");
  CHECK(decimals_for(0.0046) == 4);
  CHECK(decimals_for(0.12) == 2);
  CHECK(decimals_for(std::numeric_limits<double>::quiet_NaN()) == 4);
  CHECK(shorten("abcdefghij", 7) == "abc\u2026hij");
  CHECK(shorten("\u00e4\u00f6\u00fc\u00e4\u00f6\u00fc", 5) == "\u00e4\u00f6\u2026\u00f6\u00fc");
  CHECK(escape_html("<a b=\"c\">&\x01") == "&lt;a b=&quot;c&quot;&gt;&amp;");
}

TEST_CASE("a spike of one point among a hundred thousand is drawn") {
  std::vector<double> y(100000, 1.0);
  y[43210] = 9.5;
  const std::string svg = draw_chart(chart_of({curve(y)}, 100000, 10), {860, 400}, 3000);
  const std::size_t line = svg.find("<path class=\"line");
  const auto ys = numbers(svg.substr(line, svg.find("/>", line) - line), "[ML][\\d.]+ ([\\d.]+)");
  // plot: top 26, height 400 - 26 - 40; y = 9.5 of 10
  CHECK(*std::min_element(ys.begin(), ys.end()) == Approx(26 + 334 * 0.05).margin(0.2));
  CHECK(svg.size() < 60000);
}

TEST_CASE("labels at the ends of curves never overlap and stay in the chart") {
  std::vector<Layer> layers;
  for (int i = 0; i < 12; ++i) layers.push_back(curve({3.0, 1 + 0.001 * (i % 5)}, "curve " + std::to_string(i)));
  const std::string svg = draw_chart(chart_of(layers, 1, 10), {390, 320}, 1000);
  auto ys = numbers(svg, "class=\"name\"[^>]* y=\"([\\d.]+)\"");
  REQUIRE(ys.size() == 12);
  std::sort(ys.begin(), ys.end());
  for (std::size_t i = 1; i < ys.size(); ++i) CHECK(ys[i] - ys[i - 1] >= 13.9);
  CHECK(ys.back() < 320);
  CHECK(ys.front() > 0);
}

TEST_CASE("more names than room: some are left out, none overlaps") {
  std::vector<Layer> layers;
  for (int i = 0; i < 200; ++i) layers.push_back(curve({3.0, 0.04 * i}, "c" + std::to_string(i)));
  auto ys = numbers(draw_chart(chart_of(layers, 1, 10), {390, 320}, 100), "class=\"name\"[^>]* y=\"([\\d.]+)\"");
  REQUIRE(ys.size() > 10);
  std::sort(ys.begin(), ys.end());
  for (std::size_t i = 1; i < ys.size(); ++i) CHECK(ys[i] - ys[i - 1] >= 13.9);
}

TEST_CASE("NaN breaks a line, a lone point is a dot, nothing becomes nan in the file") {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const std::string svg = draw_chart(chart_of({curve({1, 2, nan, 3, nan, 4, 5})}, 6, 10), {400, 300}, 100);
  const std::smatch match = [&] {
    std::smatch m;
    std::regex_search(svg, m, std::regex("class=\"line[^>]* d=\"([^\"]*)\""));
    return m;
  }();
  const std::string d = match[1];
  CHECK(std::count(d.begin(), d.end(), 'M') == 3);
  CHECK(d.find("h.01") != std::string::npos);
  CHECK(svg.find("nan") == std::string::npos);
  CHECK(svg.find("inf") == std::string::npos);
}

TEST_CASE("every two of the first groups differ in colour and in dash") {
  for (int a = 0; a < 6; ++a) {
    for (int b = 0; b < a; ++b) {
      CHECK(std::string(palette_colour(a)) != palette_colour(b));
      CHECK(std::string(palette_dash(a)) != palette_dash(b));
    }
  }
}
