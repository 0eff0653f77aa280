#include "weights/import.h"

#include <fmt/ostream.h>

#include <CLI/CLI.hpp>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "cli/command.h"
#include "cli/options.h"
#include "cli/stopwatch.h"
#include "cli/text.h"
#include "engine/core/error.h"

namespace damoyolo::cli {
namespace {

struct ImportArguments {
  std::string checkpoint, out;
  std::string names, structure, dtype = "fp32";
  ImportOptions options;
};

std::ifstream open(const std::string& path) {
  errno = 0;
  std::ifstream file(path, std::ios::binary);
  if (!file) throw Error("{}: cannot be opened: {}", path, std::strerror(errno));
  if (file.peek() == std::ifstream::traits_type::eof())
    throw Error("{}: is {}", path, std::filesystem::is_directory(path) ? "a directory, expected a file" : "empty");
  return file;
}

// A name on each line; blank lines and blanks at the ends of lines do not count.
std::vector<std::string> read_names(const std::string& path) {
  if (path == "coco") return coco_names();
  std::ifstream file = open(path);
  std::vector<std::string> names;
  for (std::string line; std::getline(file, line);) {
    const std::size_t first = line.find_first_not_of(" \t\r"), last = line.find_last_not_of(" \t\r");
    if (first != std::string::npos) names.push_back(line.substr(first, last - first + 1));
  }
  if (names.empty()) throw Error("{}: has no class names, expected one on each line", path);
  return names;
}

// An entry in the layout of variants.json, by itself or as the only one under its name.
ModelSpec read_structure(const std::string& path) {
  std::ifstream file = open(path);
  const auto json = nlohmann::json::parse(file, nullptr, false);
  if (!json.is_object()) throw Error("{}: is not a JSON object, expected a structure as in variants.json", path);
  if (json.contains("backbone") || json.size() != 1) return spec_from_json(json, "custom", path);
  return spec_from_json(json.front(), "custom", path);
}

void print(std::ostream& out, const ImportArguments& arguments, const ImportReport& report, double seconds) {
  const auto row = [&out](const char* label, const std::string& text) { fmt::print(out, "{:<12}{}\n", label, text); };
  const ModelSpec& model = report.model;
  std::string format(name_of(report.format));
  if (!report.nesting.empty()) format += fmt::format(", weights under \"{}\"", report.nesting);
  if (!report.prefix.empty()) format += fmt::format(", names begin with \"{}\"", report.prefix);
  row("checkpoint", fmt::format("{} ({})", arguments.checkpoint, format));
  row("sha256", report.source_sha256);
  row("variant", model.variant);
  row("classes", model.class_names.empty() ? fmt::format("{}, without names", model.head.classes)
                                           : fmt::format("{}: {}", model.head.classes, joined(model.class_names, 10)));
  if (report.dropped_score_channel) row("", "the last score channel, without meaning, was dropped");
  row("input", fmt::format("{}x{} pixels", model.input_height, model.input_width));
  row("parameters", fmt::format("{} learned, {} to run", report.parameters_before, report.parameters_after));
  row("merged", fmt::format("{} BatchNorms, {} RepConvs{}", report.batch_norms_folded, report.rep_convs_merged,
                            report.rep_convs_deployed == 0
                                ? ""
                                : fmt::format(" ({} had been merged already)", report.rep_convs_deployed)));
  row("written",
      fmt::format("{}: {}, {}, {}", arguments.out, counted(static_cast<std::size_t>(report.tensors), "tensor"),
                  arguments.dtype, bytes_text(report.output_bytes)));
  row("time", fmt::format("{:.2f} s", seconds));
}

int import(ImportArguments arguments, Console& console) {
  const Stopwatch watch;
  ImportOptions& options = arguments.options;
  if (!arguments.names.empty()) options.class_names = read_names(arguments.names);
  if (!arguments.structure.empty()) options.structure = read_structure(arguments.structure);
  options.dtype = arguments.dtype == "bf16" ? DType::BF16 : DType::F32;
  const ImportReport report = import_checkpoint(arguments.checkpoint, arguments.out, options);
  print(console.out, arguments, report, watch.seconds());
  for (const std::string& warning : report.warnings) fmt::print(console.err, "damoyolo: warning: {}\n", warning);
  return 0;
}

std::vector<std::string> variant_names() {
  std::vector<std::string> names{"auto"};
  for (const ModelSpec& model : released_variants()) names.push_back(model.variant);
  return names;
}

}  // namespace

Action add_import(CLI::App& command) {
  const auto arguments = std::make_shared<ImportArguments>();
  ImportOptions& options = arguments->options;
  command.add_option("CKPT", arguments->checkpoint, "Training checkpoint: .pth, .pt or .safetensors")
      ->type_name("")
      ->required();
  command.add_option("-o,--out", arguments->out, "Weights file to write")->type_name("FILE")->required();
  CLI::Option* variant = command.add_option("--variant", options.variant, "Structure; auto: told by the weights");
  allow_only(*variant, variant_names())->capture_default_str();
  command.add_option("--structure", arguments->structure, "Structure of your own, an entry as in variants.json")
      ->type_name("FILE")
      ->excludes(variant);
  command.add_option("--names", arguments->names, "Class names, one on each line of a file; or coco")
      ->type_name("FILE|coco");
  CLI::Option* classes =
      command.add_option("--classes", options.classes, "Number of classes; an error when the checkpoint has another");
  allow_range(*classes, 1, 100000);
  command.add_flag("--legacy", options.legacy, "The last score channel has no meaning, as in industrial models");
  const auto set_size = [arguments](const std::string& text) { arguments->options.size = parse_size(text); };
  command.add_option_function<std::string>("--size", set_size, "Network size, multiples of 32; else the variant's")
      ->type_name("HEIGHTxWIDTH");
  CLI::Option* dtype = command.add_option("--dtype", arguments->dtype, "How weights are stored");
  allow_only(*dtype, {"fp32", "bf16"})->capture_default_str();
  return [arguments](Console& console) { return import(*arguments, console); };
}

}  // namespace damoyolo::cli
