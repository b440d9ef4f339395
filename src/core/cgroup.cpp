#include "core/cgroup.h"

#include <algorithm>
#include <fstream>
#include <iterator>
#include <sstream>

namespace nsa {

namespace {

// The number a file begins with; -1 for "max" and for a file that is not there.
double number_in(const std::string& path) {
  std::ifstream file(path);
  double n = 0;
  return file >> n ? n : -1;
}

// The number after `key` in a file of "key number" lines; 0 when it is not there.
double number_of(const std::string& path, const std::string& key) {
  std::ifstream file(path);
  std::string name;
  for (double n = 0; file >> name >> n;)
    if (name == key) return n;
  return 0;
}

}  // namespace

std::vector<std::string> cgroup_folders(const std::string& proc_cgroup, const std::string& root) {
  std::vector<std::string> folders;
  std::istringstream lines(proc_cgroup);
  for (std::string line; std::getline(lines, line);) {
    if (line.rfind("0::/", 0) != 0) continue;  // other lines are of version 1
    for (std::string path = line.substr(3); path.size() > 1; path.resize(path.rfind('/')))
      folders.push_back(root + path);
  }
  folders.push_back(root);
  return folders;
}

std::vector<std::string> cgroup_folders() {
  std::ifstream file("/proc/self/cgroup");
  return cgroup_folders({std::istreambuf_iterator<char>(file), {}}, "/sys/fs/cgroup");
}

double cpu_quota(const std::vector<std::string>& folders) {
  double tightest = 0;
  for (const std::string& folder : folders) {
    std::ifstream file(folder + "/cpu.max");  // "max 100000" or "200000 100000": microseconds per period
    double quota = 0, period = 0;
    if (file >> quota >> period && quota > 0 && period > 0)
      tightest = tightest > 0 ? std::min(tightest, quota / period) : quota / period;
  }
  return tightest;
}

double memory_left(const std::vector<std::string>& folders) {
  double tightest = 0;
  for (const std::string& folder : folders) {
    const double limit = number_in(folder + "/memory.max"), used = number_in(folder + "/memory.current");
    if (limit < 0 || used < 0) continue;
    const double cache = number_of(folder + "/memory.stat", "inactive_file");
    const double left = std::max(1.0, limit - used + cache);
    tightest = tightest > 0 ? std::min(tightest, left) : left;
  }
  return tightest;
}

}  // namespace nsa
