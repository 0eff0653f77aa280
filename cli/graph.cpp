#include "engine/graph.h"

#include <fmt/ostream.h>

#include <CLI/CLI.hpp>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "cli/command.h"
#include "cli/options.h"
#include "cli/text.h"
#include "engine/detector.h"
#include "engine/model/build.h"
#include "engine/passes/passes.h"
#include "weights/weights_file.h"

namespace damoyolo::cli {
namespace {

struct GraphOptions {
  std::string weights, variant;
  DetectorOptions detector;
  bool plain = false, plan = false, dot = false;
};

void print_plan(const GraphOptions& options, Console& console) {
  Detector detector(options.weights, options.detector);
  fmt::print(console.out, "{}, batch {}\n{}\n\n{}", describe(detector.model()), options.detector.max_batch,
             detector.device().reason, detector.plan_text(options.detector.max_batch));
}

void print_graph(const GraphOptions& options, Console& console) {
  const ModelSpec model =
      options.variant.empty() ? WeightsFile(options.weights).model() : released_variant(options.variant);
  Graph graph = build_model(model, options.detector.max_batch, model.input_height, model.input_width).graph;
  std::vector<std::pair<std::string_view, std::size_t>> operations{{"as built", graph.nodes.size()}};
  if (!options.plain) {
    for (const Pass& pass : optimization_passes()) {
      pass.apply(graph);
      validate(graph);
      operations.emplace_back(pass.name, graph.nodes.size());
    }
    if (!options.detector.keep_fp32.empty()) {
      keep_fp32(graph, options.detector.keep_fp32);
      operations.emplace_back("keep_fp32", graph.nodes.size());
    }
  }
  if (options.dot) {
    fmt::print(console.out, "{}", to_dot(graph));
    return;
  }
  fmt::print(console.out, "{}, batch {}\n\n{}", describe(model), options.detector.max_batch, to_text(graph));
  if (options.plain) return;
  fmt::print(console.out, "\n{:<18}{:>10}\n", "pass", "operations");
  for (const auto& [name, count] : operations) fmt::print(console.out, "{:<18}{:>10}\n", name, count);
  fmt::print(console.out, "{} operations as built, {} after the passes\n", operations.front().second,
             operations.back().second);
}

}  // namespace

Action add_graph(CLI::App& command) {
  const auto options = std::make_shared<GraphOptions>();
  CLI::Option_group* source = command.add_option_group("structure", "Which network");
  add_weights_option(*source, options->weights);
  std::vector<std::string> names;
  for (const ModelSpec& model : released_variants()) names.push_back(model.variant);
  CLI::Option* variant = source->add_option("--variant", options->variant, "A released structure, without weights");
  allow_only(*variant, names);
  source->require_option(1);
  add_batch_option(command, options->detector.max_batch);
  CLI::Option* plain = command.add_flag("--plain", options->plain, "As built, before the passes");
  CLI::Option* dot = command.add_flag("--dot", options->dot, "Graphviz: pipe it into \"dot -Tsvg\"");
  command.add_flag("--plan", options->plan, "What runs on the device: kernels, and where tensors lie in the arena")
      ->excludes(plain, dot, variant);
  add_device_options(command, options->detector);
  return [options](Console& console) {
    (options->plan ? print_plan : print_graph)(*options, console);
    return 0;
  };
}

}  // namespace damoyolo::cli
