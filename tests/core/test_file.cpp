#include <sys/stat.h>

#include <cstdint>
#include <filesystem>
#include <fstream>

#include "catch.h"
#include "core/file.h"
#include "error_of.h"
#include "temp_dir.h"

using namespace nsa;
namespace fs = std::filesystem;

TEST_CASE("file: what is written is read, and nothing else stays") {
  TempDir dir;
  const std::string path = dir.path() + "/a";
  std::string content(300000, 'x');
  content[5] = '\0';
  write_file_atomic(path, "old");
  write_file_atomic(path, content);
  CHECK(read_file(path) == content);
  write_file_atomic(path, "");
  CHECK(read_file(path).empty());
  CHECK(std::distance(fs::directory_iterator(dir.path()), {}) == 1);
}

TEST_CASE("file: errors name the path and the reason") {
  TempDir dir;
  CHECK(error_of([&] { read_file(dir.path() + "/none"); }) ==
        "cannot read " + dir.path() + "/none: No such file or directory");
  CHECK(contains(error_of([&] { read_file(dir.path()); }), "Is a directory"));
  CHECK(contains(error_of([&] { write_file_atomic(dir.path() + "/none/a", "x"); }), "No such file or directory"));
  CHECK(contains(error_of([&] { sync_folder(dir.path() + "/none"); }), "none"));
  fs::create_directory(dir.path() + "/full");
  CHECK(contains(error_of([&] { write_file_atomic(dir.path() + "/full", "x"); }), "cannot replace"));
  CHECK(std::distance(fs::directory_iterator(dir.path()), {}) == 1);
}

TEST_CASE("file: an unfinished file is removed") {
  TempDir dir;
  {
    OutputFile file(dir.path() + "/half");
    file.write("abc", 3);
  }
  CHECK_FALSE(fs::exists(dir.path() + "/half"));
  {
    OutputFile file(dir.path() + "/whole");
    file.write("abc", 3);
    file.finish();
  }
  CHECK(read_file(dir.path() + "/whole") == "abc");
  const std::string full = dir.path() + "/full";
  fs::create_symlink("/dev/full", full);
  CHECK(error_of([&] { OutputFile(full).write("abc", 3); }) == "cannot write " + full + ": No space left on device");
  CHECK(fs::is_symlink(full));  // a device is not removed
}

TEST_CASE("file: a long file written in pieces is whole") {
  TempDir dir;
  const std::string path = dir.path() + "/long";
  std::string piece(7'654'321, '\0');
  std::uint32_t x = 1;
  for (char& c : piece) c = static_cast<char>((x = x * 1664525u + 1013904223u) >> 24);
  OutputFile file(path);
  for (int i = 0; i < 15; ++i) file.write(piece.data(), piece.size());  // three stretches of 32 MiB
  file.finish();
  const std::string content = read_file(path);
  REQUIRE(content.size() == 15 * piece.size());
  for (std::size_t i = 0; i < 15; ++i) CHECK(content.compare(i * piece.size(), piece.size(), piece) == 0);
}

TEST_CASE("file: folders are made, kept, and refused with the part that is in the way") {
  TempDir dir;
  make_folders(dir.path() + "/a/b/c");
  make_folders(dir.path() + "/a/b/c");
  make_folders(dir.path() + "/a//d/");
  CHECK(fs::is_directory(dir.path() + "/a/b/c"));
  CHECK(fs::is_directory(dir.path() + "/a/d"));
  std::ofstream(dir.path() + "/file") << "x";
  CHECK(contains(error_of([&] { make_folders(dir.path() + "/file/x"); }), dir.path() + "/file is a file"));
  CHECK(contains(error_of([] { make_folders(""); }), "without a name"));
  CHECK(contains(error_of([] { make_folders("/proc/nsa_no_such/x"); }), "cannot make the folder /proc/nsa_no_such: "));
}
