// Fits what predictions of our own convolutions are made of to times of layer-bench:
//   build/layer-bench --kernels own --all --json layers.json && build/fit-costs layers.json
//
// Prints every cost before and after, for ConvCosts in engine/cuda/conv_heuristics.h, and how good the predictions are
// with both: by how much they are off, and how much slower the kernels are that would be taken than the fastest.
// Needs no GPU.

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "bench/layers/cost_fit.h"
#include "bench/program.h"
#include "engine/core/error.h"

namespace {

using namespace damoyolo;
using namespace damoyolo::cuda;

nlohmann::json read(const std::string& path) {
  std::ifstream file(path);
  if (!file) throw Error("{}: cannot be opened", path);
  return nlohmann::json::parse(file);
}

void print(const char* which, const ConvCosts& costs, const std::vector<std::vector<MeasuredKernel>>& layers,
           const DeviceTraits& device) {
  const FitQuality quality = quality_of(costs, layers, device);
  fmt::print("{}: predictions are off by a factor of {:.3f}, and what they choose takes {:.3f} times the fastest\n",
             which, quality.error, quality.regret);
}

void run(const std::string& path, const std::string& table) {
  std::vector<std::vector<MeasuredKernel>> layers;
  DeviceTraits device;
  try {
    const nlohmann::json report = read(path);
    device = report.at("traits").get<DeviceTraits>();
    if (device.multiprocessors < 1) throw Error("{}: has the traits of no GPU", path);
    layers = measured_kernels(report, read_layers(table), device);
    fmt::print("{}, caches {}, {} overlap\n", report.at("device").get<std::string>(),
               report.at("caches").get<std::string>(), report.at("overlap").get<bool>() ? "with" : "without");
  } catch (const nlohmann::json::exception& error) {
    throw Error("{}: is no report of layer-bench ({})", path, error.what());
  }
  if (layers.empty()) throw Error("{}: has no times of our own kernels on layers of {}", path, table);
  const ConvCosts now, then = fitted(now, layers, device);
  for (const NamedCost& cost : named_costs())
    fmt::print("{:<20} {:>10.4g} {:>10.4g}\n", cost.name, now.*cost.value, then.*cost.value);
  print("as they are", now, layers, device);
  print("fitted", then, layers, device);
}

}  // namespace

int main(int argc, char** argv) {
  std::string path, table = "bench/layers/layers.json";
  CLI::App app("Fits the costs behind the heuristics of our convolutions to measured times", "fit-costs");
  app.add_option("report", path, "What layer-bench --json wrote")->required();
  app.add_option("--layers", table, "The table it was run with")->capture_default_str();
  return parse_and_run(app, argc, argv, [&] { run(path, table); });
}
