// What the subcommands have in common: each is one file with a function that declares its options.
#pragma once

#include <functional>
#include <iosfwd>
#include <string>

namespace CLI {
class App;
}

namespace damoyolo::cli {

// Where a command reads and writes.
struct Console {
  std::istream& in;
  std::ostream& out;
  std::ostream& err;
  std::string typed = {};  // the command line
};

// What a command does once its options are parsed: returns the exit code, throws Error when it cannot go on.
using Action = std::function<int(Console&)>;

Action add_import(CLI::App& command);
Action add_detect(CLI::App& command);
Action add_forward(CLI::App& command);
Action add_graph(CLI::App& command);
Action add_doctor(CLI::App& command);
Action add_eval(CLI::App& command);
Action add_audit(CLI::App& command);
Action add_bench(CLI::App& command);
Action add_layers(CLI::App& command);

}  // namespace damoyolo::cli
