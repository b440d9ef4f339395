#include <limits>

#include "catch.h"
#include "core/text.h"

using namespace nsa;

TEST_CASE("counts, sizes and durations at the edges of their units") {
  CHECK(human_count(0) == "0");
  CHECK(human_count(999) == "999");
  CHECK(human_count(1000) == "1.00k");
  CHECK(human_count(12345) == "12.3k");
  CHECK(human_count(999499) == "999k");
  CHECK(human_count(999600) == "1.00M");
  CHECK(human_count(1.5) == "1.50");
  CHECK(human_bytes(1023) == "1023 B");
  CHECK(human_bytes(1024) == "1.00 KiB");
  CHECK(human_bytes(3.5 * 1024 * 1024 * 1024) == "3.50 GiB");
  CHECK(human_duration(0.44) == "0.4 s");
  CHECK(human_duration(42) == "42 s");
  CHECK(human_duration(59.7) == "1:00");
  CHECK(human_duration(187) == "3:07");
  CHECK(human_duration(7387) == "2:03:07");
  CHECK(human_duration(3 * 86400 + 2 * 3600 + 180) == "3d 02:03");
  CHECK(human_duration(std::numeric_limits<double>::infinity()) == "?");
  CHECK(percent(0.6349) == "63.5 %");
  CHECK(percent(1, 0) == "100 %");
  CHECK(grouped(0) == "0");
  CHECK(grouped(123) == "123");
  CHECK(grouped(-1234567) == "-1,234,567");
}

TEST_CASE("table columns line up") {
  CHECK(to_text(Table{"t", {"", "n"}, {{"a", "1"}, {"long", "1,000"}}}) ==
        "t\n            n\n  a         1\n  long  1,000\n");
  CHECK(to_text(Table{}) == "");
}
