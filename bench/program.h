// How the programs of bench/ begin and end.
#pragma once

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <exception>

namespace damoyolo {

// Parses the command line and runs. The exit status of the program, which has a name of its own: 1 when `run` throws,
// and what that says is printed behind the name.
template <typename Run>
int parse_and_run(CLI::App& app, int argc, char** argv, Run run) {
  CLI11_PARSE(app, argc, argv);
  try {
    run();
    return 0;
  } catch (const std::exception& error) {
    fmt::print(stderr, "{}: {}\n", app.get_name(), error.what());
    return 1;
  }
}

}  // namespace damoyolo
