// The README's table of config fields is the program's own.
#include "catch.h"
#include "core/file.h"
#include "train/config.h"
#include "places.h"

using namespace nsa;

TEST_CASE("the README ends with the output of nsa config --reference") {
  const std::string readme = read_file(std::string(kSourceDir) + "/README.md"), mark = "<!-- reference -->\n";
  const std::size_t begin = readme.find(mark);
  REQUIRE(begin != std::string::npos);
  INFO("after a change of fields: cut README.md below the mark and append the output of build/nsa config --reference");
  CHECK((readme.substr(begin + mark.size()) == config_reference()));
}
