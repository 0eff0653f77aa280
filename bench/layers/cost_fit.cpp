#include "bench/layers/cost_fit.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <string>
#include <utility>

#include "engine/cuda/own_convolution.h"

namespace damoyolo::cuda {
namespace {

using Layers = std::span<const std::vector<MeasuredKernel>>;

// All that layer-bench would time of ours.
std::map<std::string, OwnConvolution> kernels_by_name(const ConvProblem& problem, const DeviceTraits& device) {
  std::map<std::string, OwnConvolution> named;
  for (const OwnConvolution& one : own_convolutions(problem, device, own_kernels(), ~std::size_t{0}))
    named.emplace(own_name(*one.kernel, one.config), one);
  return named;
}

double fastest(const std::vector<MeasuredKernel>& kernels) {
  return std::ranges::min_element(kernels, {}, &MeasuredKernel::seconds)->seconds;
}

double prediction(const MeasuredKernel& kernel, const ConvCosts& costs, const DeviceTraits& device) {
  return predicted_seconds(kernel.problem, device, kernel.generation, kernel.config, costs);
}

// The mean of the squared logarithms of predicted over measured, weighted.
double misfit(const ConvCosts& costs, Layers layers, const DeviceTraits& device) {
  double sum = 0, weights = 0;
  for (const auto& kernels : layers) {
    const double best = fastest(kernels);
    for (const MeasuredKernel& kernel : kernels) {
      const double off = std::log(prediction(kernel, costs, device) / kernel.seconds);
      const double weight = (best / kernel.seconds) * (best / kernel.seconds);
      sum += weight * off * off;
      weights += weight;
    }
  }
  return sum / weights;
}

}  // namespace

std::vector<std::vector<MeasuredKernel>> measured_kernels(const nlohmann::json& report,
                                                          const std::vector<Layer>& layers,
                                                          const DeviceTraits& device) {
  std::map<std::string, ConvProblem> problems;
  for (const Layer& layer : layers) problems.emplace(describe(layer.problem), layer.problem);
  std::vector<std::vector<MeasuredKernel>> measured;
  for (const nlohmann::json& layer : report.at("layers")) {
    const auto found = problems.find(layer.at("layer").get<std::string>());
    if (found == problems.end()) continue;
    const ConvProblem problem = with_batch(found->second, layer.at("batch"));
    const std::map<std::string, OwnConvolution> kernels = kernels_by_name(problem, device);
    std::vector<MeasuredKernel> timed;
    for (const nlohmann::json& candidate : layer.at("candidates")) {
      const auto kernel = kernels.find(candidate.at("kernel").get<std::string>());
      if (kernel == kernels.end() || !candidate.contains("us")) continue;
      timed.push_back({problem, kernel->second.kernel->generation, kernel->second.config,
                       candidate.at("us").get<double>() * 1e-6});
    }
    if (!timed.empty()) measured.push_back(std::move(timed));
  }
  return measured;
}

FitQuality quality_of(const ConvCosts& costs, Layers layers, const DeviceTraits& device) {
  double off = 0, lost = 0;
  std::size_t count = 0;
  for (const auto& kernels : layers) {
    const auto predicted = [&](const MeasuredKernel& kernel) { return prediction(kernel, costs, device); };
    for (const MeasuredKernel& kernel : kernels) off += std::abs(std::log(predicted(kernel) / kernel.seconds));
    lost += std::log(std::ranges::min_element(kernels, {}, predicted)->seconds / fastest(kernels));
    count += kernels.size();
  }
  return {std::exp(off / static_cast<double>(count)), std::exp(lost / static_cast<double>(layers.size()))};
}

// Pattern search: each cost in turn is made larger and smaller by a factor, and kept where that fits better; when none
// does, the factor is halved. The misfit has kinks, for a prediction is the largest of several times, and no
// derivative worth following.
ConvCosts fitted(ConvCosts costs, Layers layers, const DeviceTraits& device) {
  constexpr double kFirstStep = 0.4, kLastStep = 0.002;
  double best = misfit(costs, layers, device);
  for (double step = kFirstStep; step > kLastStep;) {
    bool better = false;
    for (const NamedCost& cost : named_costs())
      for (const double factor : {1 + step, 1 / (1 + step)}) {
        ConvCosts tried = costs;
        tried.*cost.value = std::clamp(costs.*cost.value * factor, cost.least, cost.most);
        const double misfit_of_tried = misfit(tried, layers, device);
        if (misfit_of_tried >= best) continue;
        best = misfit_of_tried;
        costs = tried;
        better = true;
      }
    if (!better) step /= 2;
  }
  return costs;
}

std::span<const NamedCost> named_costs() {
  static constexpr NamedCost kCosts[] = {
      {"launch_seconds", &ConvCosts::launch_seconds, 0.2e-6, 20e-6},
      {"latency_seconds", &ConvCosts::latency_seconds, 0.1e-6, 5e-6},
      {"block_seconds", &ConvCosts::block_seconds, 0.1e-6, 10e-6},
      {"split_seconds", &ConvCosts::split_seconds, 0.05e-6, 10e-6},
      {"cluster_seconds", &ConvCosts::cluster_seconds, 0.05e-6, 10e-6},
      {"l2_bytes", &ConvCosts::l2_bytes, 4, 128},
      {"shared_bytes", &ConvCosts::shared_bytes, 32, 256},
      {"peak_of_sm80", &ConvCosts::peak_of_sm80, 0.1, 1},
      {"peak_of_mma_on_sm90", &ConvCosts::peak_of_mma_on_sm90, 0.1, 1},
      {"peak_of_sm90", &ConvCosts::peak_of_sm90, 0.1, 1},
  };
  return kCosts;
}

}  // namespace damoyolo::cuda
