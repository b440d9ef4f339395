// The laws that a compiler does not see: which way includes point, where foreign headers may be, how long files are.
#include <algorithm>
#include <filesystem>
#include <fstream>
#include <map>
#include <regex>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "catch.h"
#include "places.h"

namespace fs = std::filesystem;

namespace {

const fs::path kRoot = kSourceDir;

bool is_code(const fs::path& p) {
  static const std::set<std::string> kEndings{".h", ".cpp", ".inc", ".cu", ".cuh"};
  return kEndings.count(p.extension().string()) > 0;
}

/// Paths relative to the root, with '/', sorted.
std::vector<std::string> code_under(const std::vector<std::string>& folders) {
  std::vector<std::string> files;
  for (const std::string& folder : folders) {
    if (!fs::exists(kRoot / folder)) continue;
    for (const auto& entry : fs::recursive_directory_iterator(kRoot / folder)) {
      if (entry.is_regular_file() && is_code(entry.path()))
        files.push_back(fs::relative(entry.path(), kRoot).generic_string());
    }
  }
  std::sort(files.begin(), files.end());
  return files;
}

std::vector<std::string> lines_of(const std::string& file) {
  std::vector<std::string> lines;
  std::ifstream in(kRoot / file);
  for (std::string line; std::getline(in, line);) lines.push_back(line);
  return lines;
}

std::ptrdiff_t columns(const std::string& utf8) {
  return std::count_if(utf8.begin(), utf8.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; });
}

/// What stands between the quotes or brackets of each #include.
std::vector<std::string> includes_of(const std::string& file) {
  static const std::regex kInclude(R"(^\s*#\s*include\s*["<]([^">]+)[">])");
  std::vector<std::string> found;
  std::smatch match;
  for (const std::string& line : lines_of(file)) {
    if (std::regex_search(line, match, kInclude)) found.push_back(match[1]);
  }
  return found;
}

std::string first_folder(const std::string& path) { return path.substr(0, path.find('/')); }

/// Folders each folder may include besides itself: core <- data | ops | nsa <- model <- train | eval | report <- cli.
const std::map<std::string, std::set<std::string>>& allowed() {
  static const std::map<std::string, std::set<std::string>> kAllowed{
      {"core", {}},
      {"cuda", {"core"}},  // the wrappers that kernels are written with
      {"data", {"core"}},
      {"ops", {"core", "cuda"}},
      {"nsa", {"core", "ops", "cuda"}},  // the NSA kernels use the row and tile helpers of the ops
      {"model", {"core", "data", "ops", "nsa"}},
      {"train", {"core", "data", "ops", "nsa", "model"}},
      {"eval", {"core", "data", "ops", "nsa", "model", "train"}},  // verify repeats the training steps of a golden file
      {"report", {"core"}},  // it reads what runs wrote, and knows nothing of how they wrote it
      {"cli", {"core", "data", "ops", "nsa", "model", "train", "eval", "report"}},
  };
  return kAllowed;
}

struct ForeignHeader {
  std::string prefix;               // of what stands in the #include
  std::vector<std::string> places;  // files or folders
};

/// The tables of third_party/README.md: second and last column.
std::vector<ForeignHeader> foreign_headers() {
  static const std::regex kCode("`([^`]+)`");
  std::vector<ForeignHeader> rows;
  for (const std::string& line : lines_of("third_party/README.md")) {
    if (line.rfind("| `", 0) != 0) continue;
    std::vector<std::string> cells;
    std::stringstream in(line.substr(1));
    for (std::string cell; std::getline(in, cell, '|');) cells.push_back(cell);
    std::smatch header;
    if (!std::regex_search(cells.at(1), header, kCode)) continue;
    ForeignHeader row{header[1], {}};
    const std::string& places = cells.at(5);
    for (std::sregex_iterator i(places.begin(), places.end(), kCode), end; i != end; ++i) row.places.push_back((*i)[1]);
    rows.push_back(row);
  }
  return rows;
}

bool lies_in(const std::string& file, const std::string& place) {
  return file == place || file.rfind(place + "/", 0) == 0;
}

}  // namespace

TEST_CASE("includes point one way") {
  std::size_t seen = 0;
  for (const std::string& file : code_under({"include", "src"})) {
    const std::string inside = file.substr(file.find('/') + 1), folder = first_folder(inside);
    INFO(file);
    REQUIRE(allowed().count(folder) == 1);
    for (const std::string& include : includes_of(file)) {
      const std::string target = first_folder(include);
      if (allowed().count(target) == 0) continue;  // a system or foreign header
      ++seen;
      INFO("includes " << include);
      CHECK((target == folder || allowed().at(folder).count(target) > 0));
    }
  }
  CHECK(seen > 50);
}

TEST_CASE("only the verbs and its own tests link report/") {
  std::string text;
  for (const char* file : {"CMakeLists.txt", "tests/CMakeLists.txt"}) {
    for (const std::string& line : lines_of(file)) text += line + "\n";
  }
  static const std::regex kSources(R"(\b(?:add_library|set)\((\w+)[^)]*src/report/[^)]*\))");
  static const std::regex kLinks(R"(target_link_libraries\((\w+)[^)]*\bnsa_report\b[^)]*\))");
  std::set<std::string> owners, users;
  for (std::sregex_iterator i(text.begin(), text.end(), kSources), end; i != end; ++i) owners.insert((*i)[1]);
  for (std::sregex_iterator i(text.begin(), text.end(), kLinks), end; i != end; ++i) users.insert((*i)[1]);
  CHECK(owners == std::set<std::string>{"nsa_report"});
  CHECK(users == std::set<std::string>{"nsa", "test_report"});
}

TEST_CASE("foreign headers are where third_party/README.md says") {
  const auto headers = foreign_headers();
  REQUIRE(headers.size() >= 10);
  for (const std::string& file : code_under({"include", "src", "data_tools", "tests"})) {
    for (const std::string& include : includes_of(file)) {
      for (const ForeignHeader& h : headers) {
        if (include.rfind(h.prefix, 0) != 0) continue;
        INFO(file << " includes " << include);
        CHECK(std::any_of(h.places.begin(), h.places.end(),
                          [&](const std::string& place) { return lies_in(file, place); }));
      }
    }
  }
}

TEST_CASE("host and device memory meet in core/transfer alone") {
  // Elements as a backend sees them: for backends, and for what moves bytes between them.
  static const std::regex kRaw(R"(^(?!\s*//).*(\braw(_bytes)?(<[^>]*>)?\(\)|\breveal\())");
  static const std::set<std::string> kMay{"include/core/tensor.h", "include/core/where.h", "src/core/memory.cpp",
                                          "src/core/transfer.cpp"};
  static const std::regex kBackend("^src/(ops|nsa)/(cpu|cuda)/"), kCopy(R"(cuda(Memcpy|Memset|HostAlloc|Malloc))");
  std::size_t seen = 0;
  for (const std::string& file : code_under({"include", "src", "data_tools"})) {
    const bool may = kMay.count(file) > 0 || std::regex_search(file, kBackend);
    for (const std::string& line : lines_of(file)) {
      INFO(file << ": " << line);
      if (std::regex_search(line, kCopy)) CHECK((file == "src/core/transfer.cpp" || file == "src/core/memory.cpp"));
      if (!std::regex_search(line, kRaw)) continue;
      ++seen;
      CHECK(may);
    }
  }
  CHECK(seen > 50);
}

TEST_CASE("CUDA headers only in CUDA files") {
  static const std::regex kCuda("^(cuda|cublas|cudnn|nccl|cooperative_groups|cub/|cute/|cutlass/)");
  for (const std::string& file : code_under({"include", "src", "data_tools"})) {
    const std::string ending = fs::path(file).extension().string();
    if (ending == ".cu" || ending == ".cuh") continue;
    for (const std::string& include : includes_of(file)) {
      INFO(file << " includes " << include);
      CHECK_FALSE(std::regex_search(include, kCuda));
    }
  }
}

namespace {

/// What the emulator could not run, or a kernel must not do: each is refused outside of include/cuda.
struct Refused {
  const char* pattern;
  const char* instead;
};
const Refused kRefused[] = {
    {R"(\basm\b)", "PTX: a wrapper of include/cuda"},
    {R"(<<<|cudaLaunchKernel)", "launch() of cuda/launch.cuh"},
    {R"(__shared__)", "SharedMemory or NSA_SHARED of cuda/shared.cuh"},
    {R"(__CUDA_ARCH__|__CUDACC__)", "NSA_SM90 of cuda/runtime.cuh"},
    {R"(cooperative_groups|\bcub\b|cuda::(std|barrier|pipeline|atomic)|#include <(cub|cuda|cute|thrust)/)", "own code"},
    {R"(\b__(shfl|shfl_up|shfl_down|shfl_xor|any|all|ballot)\()", "the _sync form, with a mask"},
    {R"(__activemask)", "a mask that is known"},
    {R"(\bextern\s+"C")", "an ordinary function"},
    {R"(__(device|constant)__\s+(unsigned|int|float|bool|std::|static)[^()]*;)", "a kernel's argument"},
    {R"(\bvolatile\b)", "load_acquire of cuda/atomic.cuh"},
    {R"(\b(printf|malloc|free)\()", "nothing of the kind in a kernel"},
};

std::string refused(const std::string& line) {
  if (std::regex_search(line, std::regex(R"(^\s*//)"))) return "";
  for (const Refused& r : kRefused)
    if (std::regex_search(line, std::regex(r.pattern))) return r.instead;
  return "";
}

}  // namespace

TEST_CASE("PTX, launches and CUDA's own shared memory only in the wrappers") {
  std::size_t seen = 0;
  for (const std::string& file : code_under({"include", "src", "tests"})) {
    const std::string ending = fs::path(file).extension().string();
    if ((ending != ".cu" && ending != ".cuh") || lies_in(file, "include/cuda") || lies_in(file, "src/cuda")) continue;
    for (const std::string& line : lines_of(file)) {
      INFO(file << ": " << line << "\nuse instead: " << refused(line));
      CHECK(refused(line).empty());
    }
    ++seen;
  }
  CHECK(seen > 5);
  // The patterns themselves.
  for (const char* line : {"  asm volatile(\"bar.sync 0;\");", "kernel<<<1, 32>>>(x);", "extern __shared__ float s[];",
                           "#if __CUDA_ARCH__ >= 900", "cub::BlockReduce<float, 32> r;", "x = __shfl_xor(x, 1);",
                           "auto m = __activemask();", "__device__ int counter;", "volatile int* flag;",
                           "extern \"C\" __global__ void f();"}) {
    INFO(line);
    CHECK_FALSE(refused(line).empty());
  }
  for (const char* line : {"x += __shfl_xor_sync(~0u, x, 1);", "// asm is refused", "__device__ int next(int i);"}) {
    INFO(line);
    CHECK(refused(line).empty());
  }
}

TEST_CASE("no file is longer than 400 lines, no line than 120 columns") {
  for (const std::string& file : code_under({"include", "src", "data_tools", "tests"})) {
    const auto lines = lines_of(file);
    INFO(file);
    CHECK(lines.size() <= 400);
    for (std::size_t i = 0; i < lines.size(); ++i) {
      INFO("line " << i + 1);
      CHECK(columns(lines[i]) <= 120);
    }
  }
}
