// From the times of layer-bench to what predictions of our own convolutions are made of (ConvCosts).
#pragma once

#include <nlohmann/json.hpp>
#include <span>
#include <vector>

#include "bench/layers/layer_table.h"
#include "engine/cuda/conv_heuristics.h"

namespace damoyolo::cuda {

// As reports of layer-bench have it under "traits".
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(DeviceTraits, compute_capability, multiprocessors, clock, bytes_per_second,
                                   float_flops, tf32_flops, half_flops, l2_bytes, shared_bytes)

// One of our kernels on one layer.
struct MeasuredKernel {
  ConvProblem problem;
  ConvGeneration generation{};
  kernels::ConvConfig config;
  double seconds = 0;
};

// Those that a report of layer-bench has times of, layer by layer. Left out are layers that `layers` has not, and
// kernels that the heuristics would not consider on the device, others' among them. Throws nlohmann's exception where
// it is no such report.
std::vector<std::vector<MeasuredKernel>> measured_kernels(const nlohmann::json& report,
                                                          const std::vector<Layer>& layers,
                                                          const DeviceTraits& device);

// How well the predictions fit: geometric means, 1 is perfect.
struct FitQuality {
  double error = 1;   // by how much a prediction is off, to either side
  double regret = 1;  // over layers: the time of the kernel predicted to be the fastest over that of the fastest
};
FitQuality quality_of(const ConvCosts& costs, std::span<const std::vector<MeasuredKernel>> layers,
                      const DeviceTraits& device);

// The costs that minimize the squared logarithms of predicted over measured times, where slow kernels count less:
// nobody would take them. What no measurement depends on stays as it is. No layer is empty.
ConvCosts fitted(ConvCosts costs, std::span<const std::vector<MeasuredKernel>> layers, const DeviceTraits& device);

// Every cost, by its name.
struct NamedCost {
  const char* name;
  double ConvCosts::*value;
  double least, most;  // fitted() looks between
};
std::span<const NamedCost> named_costs();

}  // namespace damoyolo::cuda
