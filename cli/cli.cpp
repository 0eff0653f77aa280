#include "cli/cli.h"

#include <fmt/ostream.h>
#include <fmt/ranges.h>

#include <CLI/CLI.hpp>
#include <exception>
#include <memory>
#include <new>
#include <ostream>
#include <string>
#include <vector>

#include "cli/command.h"
#include "cli/text.h"
#include "engine/core/error.h"

namespace damoyolo::cli {
namespace {

constexpr const char* kVersion = "damoyolo 0.1.0";
constexpr int kFailed = 1, kWrongUsage = 2;

struct Command {
  const char* name;
  const char* description;
  Action (*add)(CLI::App&);
};

constexpr Command kCommands[] = {
    {"import", "Make a weights file from a training checkpoint", add_import},
    {"detect", "Find the objects in images", add_detect},
    {"eval", "Measure average precision on images with COCO annotations", add_eval},
    {"audit", "Compare a precision with fp32 layer by layer, and say which layers to keep in fp32", add_audit},
    {"forward", "Run the network alone: pixels in, scores and boxes out, before suppression", add_forward},
    {"bench", "Measure latency, throughput and memory, over precisions, modes and batches", add_bench},
    {"layers", "Measure every step of the network by itself, beside what the device can do", add_layers},
    {"graph", "Print the network as a list of operations", add_graph},
    {"doctor", "Say what this machine offers and what would be used", add_doctor},
};

// Descriptions beside the options, in lines that a terminal of a hundred columns shows whole.
class Formatter : public CLI::Formatter {
  std::string make_option_desc(const CLI::Option* option) const override {
    return folded(CLI::Formatter::make_option_desc(option), 68);
  }
};

std::string wrong_usage(const CLI::App* app, const CLI::Error& error) {
  const std::vector<CLI::App*> chosen = app->get_subcommands();
  const std::vector<std::string> words = app->remaining();
  if (chosen.empty() && !words.empty() && !words.front().starts_with('-'))
    return fmt::format("damoyolo: there is no subcommand \"{}\"\nRun \"damoyolo --help\" for those there are.\n",
                       words.front());
  const std::string unknown = fmt::format("{}", fmt::join(chosen.empty() ? words : chosen.front()->remaining(), " "));
  const std::string what = unknown.empty() ? error.what() : "not expected: " + unknown;
  const std::string name = chosen.empty() ? "damoyolo" : "damoyolo " + chosen.front()->get_name();
  return fmt::format("damoyolo: {}\nRun \"{} --help\" for the options.\n", what, name);
}

}  // namespace

int run(int argc, const char* const* argv, std::istream& in, std::ostream& out, std::ostream& err) {
  Console console{in, out, err, fmt::format("{}", fmt::join(argv, argv + argc, " "))};
  CLI::App app{"Finds objects in images with DAMO-YOLO models.", "damoyolo"};
  app.set_version_flag("--version", kVersion, "Print the version and exit");
  app.set_help_flag("-h,--help", "Print this help and exit");
  app.failure_message(wrong_usage);
  app.formatter(std::make_shared<Formatter>());
  app.require_subcommand(1);

  // Most often a variable of the shell that is not set; as a file's name it would be taken for none.
  for (int i = 1; i < argc; ++i)
    if (*argv[i] == '\0') {
      fmt::print(err, "damoyolo: an argument is empty: what follows \"{}\"\n", argv[i - 1]);
      return kWrongUsage;
    }

  Action chosen;
  for (const Command& command : kCommands) {
    CLI::App* sub = app.add_subcommand(command.name, command.description);
    sub->callback([&chosen, action = command.add(*sub)] { chosen = action; });
  }

  try {
    app.parse(argc, argv);
    const int code = chosen(console);
    if (!out.flush()) throw Error("standard output: could not be written completely");
    return code;
  } catch (const CLI::ParseError& error) {
    // Asking for help and for the version end the parsing in the same way, without being errors.
    return app.exit(error, out, err) == 0 ? 0 : kWrongUsage;
  } catch (const std::bad_alloc&) {
    fmt::print(err, "damoyolo: there is not enough memory for this\n");
  } catch (const std::exception& error) {
    fmt::print(err, "damoyolo: {}\n", error.what());
  }
  return kFailed;
}

}  // namespace damoyolo::cli
