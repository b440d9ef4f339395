// What every main() is made of (DESIGN law 4): the only catch, the only exit code, and a process that no closed pipe,
// full disk or missing standard stream can kill.
#pragma once

#include <functional>
#include <string>

#include "core/check.h"

namespace nsa {

/// Runs `body` and returns the process's exit code. An error is one line on stderr: "PROGRAM: error: sentence".
/// Beforehand, what a shell or scheduler may have left in our way is settled once: a closed stdin, stdout or stderr is
/// held by /dev/null (the next file opened would get its number, and the next message would be written into that
/// file), and SIGPIPE, SIGXFSZ and SIGTTOU are ignored, so that writes fail with an errno instead of ending or
/// stopping the process.
int run_program(const std::function<Exit()>& body);

/// The catch of run_program, for a program that goes on with the next of several inputs.
Exit guarded(const std::function<Exit()>& body);

/// For programs whose result is what they print. Throws when it did not get to where stdout leads (disk full, closed).
/// A reader that went away (`| head`) has seen enough: that ends the program, quietly and with Exit::ok.
void flush_results();

/// May escape codes (colours, cursor movements) be written there? Only to a terminal that is not "dumb", and not when
/// NO_COLOR is set.
bool takes_escape_codes(int fd);

/// "PROGRAM a 'b c'": a command line as it can be pasted into a shell.
std::string command_line(const std::string& program, int argc, char** argv);

}  // namespace nsa
