// Whether costs come out of times that were made with them.
#include "bench/layers/cost_fit.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <string>

#include "engine/cuda/own_convolution.h"
#include "tests/conv_problems.h"

using namespace damoyolo;
using namespace damoyolo::cuda;

namespace {

// Times of a device with other costs, of the best configurations by prediction of every so many-th layer.
nlohmann::json report_of(const ConvCosts& costs) {
  constexpr std::size_t kEvery = 8, kKernels = 12;
  const std::vector<Layer> layers = read_layers();
  nlohmann::json report{{"traits", h100()}, {"layers", nlohmann::json::array()}};
  for (std::size_t i = 0; i < layers.size(); i += kEvery) {
    const int batch = i / kEvery % 2 == 0 ? 1 : 32;
    const ConvProblem problem = with_batch(layers[i].problem, batch);
    nlohmann::json layer{{"layer", describe(problem)}, {"batch", batch}};
    for (const OwnConvolution& own : own_convolutions(problem, h100(), own_kernels(), kKernels)) {
      const double seconds = predicted_seconds(problem, h100(), own.kernel->generation, own.config, costs);
      layer["candidates"].push_back({{"kernel", own_name(*own.kernel, own.config)}, {"us", seconds * 1e6}});
    }
    layer["candidates"].push_back({{"kernel", "cudnn:engine"}, {"us", 1.0}});
    layer["candidates"].push_back({{"kernel", layer["candidates"][0]["kernel"]}, {"error", "not timed"}});
    report["layers"].push_back(std::move(layer));
  }
  return report;
}

}  // namespace

TEST_CASE("costs are found again in the times of a device that has others") {
  ConvCosts truth;
  truth.launch_seconds *= 0.5;
  truth.latency_seconds *= 1.6;
  truth.block_seconds *= 1.8;
  truth.cluster_seconds *= 3;
  truth.l2_bytes *= 1.5;
  truth.peak_of_sm90 *= 0.8;
  const auto layers = measured_kernels(report_of(truth), read_layers(), h100());
  REQUIRE(layers.size() > 20);
  const FitQuality before = quality_of({}, layers, h100()), perfect = quality_of(truth, layers, h100());
  CHECK(perfect.error == doctest::Approx(1));
  CHECK(perfect.regret == doctest::Approx(1));
  CHECK(before.error > 1.1);
  const ConvCosts found = fitted({}, layers, h100());
  const FitQuality after = quality_of(found, layers, h100());
  CHECK(after.error < 1.01);
  CHECK(after.regret < 1.002);
  CHECK(after.regret < before.regret);
  CHECK(found.peak_of_sm80 == ConvCosts{}.peak_of_sm80);  // nothing was timed on a device with only that
}

TEST_CASE("only kernels and layers that are known are taken from a report") {
  nlohmann::json report = report_of({});
  const auto all = measured_kernels(report, read_layers(), h100());
  for (const auto& kernels : all)
    for (const MeasuredKernel& kernel : kernels)
      CHECK(predicted_seconds(kernel.problem, h100(), kernel.generation, kernel.config) ==
            doctest::Approx(kernel.seconds));
  report["layers"][0]["layer"] = "7x7 stride 3";
  CHECK(measured_kernels(report, read_layers(), h100()).size() == all.size() - 1);
  DeviceTraits without_shared_memory = h100();
  without_shared_memory.shared_bytes = 0;
  CHECK(measured_kernels(report, read_layers(), without_shared_memory).empty());
  CHECK_THROWS_AS(measured_kernels({{"entries", 1}}, read_layers(), h100()), nlohmann::json::exception);
}
