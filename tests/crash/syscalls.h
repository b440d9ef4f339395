// Fault injection without touching the program: the test program defines the file functions of the C library itself, so
// that every call of the code under test comes by here. Armed, the n-th call that changes the disk is replaced by a
// SIGKILL or by an error. fsync never waits for the disk: a killed process loses nothing that the kernel has.
#pragma once

#include <string>
#include <vector>

namespace fault {

enum class Action { none, kill, error };

/// From now on the calls are counted from 0; call number `at` does not happen but `action` does (`error`: it fails with
/// `errno_value`, once).
void arm(Action action, int at, int errno_value = 0);
/// Also, from now on, every call whose description holds `part` fails: a file system that cannot do it, a full disk, a
/// file that cannot be deleted.
void refuse(const std::string& part, int errno_value);
/// Back to normal. Returns the number of calls counted.
int disarm();
/// True if the fault armed has happened.
bool happened();
/// "write PATH", "fsync PATH", "fdatasync PATH", "rename FROM TO", "flock PATH", ... since arm().
const std::vector<std::string>& trace();

}  // namespace fault
