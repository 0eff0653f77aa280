// Which tiles our own convolutions should try: a pure function of the problem and the device.
//
// For every configuration that is compiled, and every number of shares of its sums, the time is predicted from what it
// has to do: how evenly the tiles divide among the multiprocessors, the products of a tile at what tensor cores and
// shared memory let through, the bytes from the second-level cache and from device memory, the time until the first
// data is there, and the launch. The convolution behind a pair's first reads products, weights and all, from a block's
// shared memory, and saves a launch and the bytes between. Autotuning times the best few by prediction, so that what
// counts is their order.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "engine/cuda/convolution.h"
#include "engine/cuda/device_traits.h"
#include "kernels/conv.h"

namespace damoyolo::cuda {

// Of tensor cores, and with that of kernels: kernels/conv_sm80.h, kernels/conv_sm90.h.
enum class ConvGeneration : std::uint8_t { Sm80, Sm90 };

// Whether the kernels of a generation run on a device.
bool runs_on(ConvGeneration generation, const DeviceTraits& device);

// Whether our own kernels may compute the problem: dense, 16-bit input, kernel 1 or 3, stride 1 or 2; a pair of them,
// where bulk copies can store both outputs.
bool has_tensor_core_kernel(const ConvProblem& problem);

// What the predictions are made of, beside what is known of the device. Nothing here has been measured: guesses, until
// "build/layer-bench --all" has run and build/fit-costs has fitted them to its times.
struct ConvCosts {
  double launch_seconds = kLaunchSeconds;  // the libraries' as well: device_traits.h
  // From a stage's request until its data can be used, mostly from the second-level cache.
  double latency_seconds = 0.6e-6;
  // Of a block around its products: its start, the first stages on their way, and the epilogue.
  double block_seconds = 1.2e-6;
  // Of a split: a ticket, and waiting for the last share; of blocks in a cluster, a trip to another's shared memory.
  double split_seconds = 1.0e-6, cluster_seconds = 0.4e-6;
  // Per clock and multiprocessor. Shared memory's rate is from NVIDIA's papers.
  double l2_bytes = 24, shared_bytes = 128;
  // Of tensor cores' peak that a loop without stalls reaches. mma.sync reaches less of the peak of later devices,
  // which wgmma alone can reach.
  double peak_of_sm80 = 0.85, peak_of_mma_on_sm90 = 0.6, peak_of_sm90 = 0.85;
};

// With the launch. `generation` runs on the device and takes the problem in this configuration.
double predicted_seconds(const ConvProblem& problem, const DeviceTraits& device, ConvGeneration generation,
                         const kernels::ConvConfig& config, const ConvCosts& costs = {});

struct ConvPrediction {
  kernels::ConvConfig config;
  double seconds = 0;  // with the launch
};

// The legal ones of `configs`, each with every `split` that is worth it, best first. `generation` runs on the device.
std::vector<ConvPrediction> predict(const ConvProblem& problem, const DeviceTraits& device, ConvGeneration generation,
                                    std::span<const kernels::ConvConfig> configs);

}  // namespace damoyolo::cuda
