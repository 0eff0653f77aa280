// The command line of the `damoyolo` program.
#pragma once

#include <iosfwd>

namespace damoyolo::cli {

// Runs the program with its arguments (argv[0] is its name) and returns the exit code: 0 when all was done, 1 when
// something failed, be it one image of many, 2 for wrong usage. Whatever goes wrong is said on `err`. The progress bar
// alone goes to the process's own stderr, when that is a terminal.
int run(int argc, const char* const* argv, std::istream& in, std::ostream& out, std::ostream& err);

}  // namespace damoyolo::cli
