// The control groups this process lives in (cgroup v2): its own, and every one above it, each of which may limit it.
#pragma once

#include <string>
#include <vector>

namespace nsa {

/// Folders under /sys/fs/cgroup, innermost first; the root, where the limits of a container are seen, is the last.
std::vector<std::string> cgroup_folders();
/// The same for the text of a /proc/PID/cgroup file and another root (tests).
std::vector<std::string> cgroup_folders(const std::string& proc_cgroup, const std::string& root);

/// CPU time in cores that the tightest of the folders' cpu.max allows; 0: no limit.
double cpu_quota(const std::vector<std::string>& folders);
/// Bytes that the tightest of the folders' memory.max leaves, page cache not counted as used; 0: no limit.
double memory_left(const std::vector<std::string>& folders);

}  // namespace nsa
