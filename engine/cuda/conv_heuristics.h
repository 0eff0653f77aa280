// Which tiles our own convolutions should try: a pure function of the problem and the device.
//
// For every configuration that is compiled, and every number of shares of its sums, the time is predicted from what it
// has to do: how evenly the tiles divide among the multiprocessors, the products of a tile at what tensor cores and
// shared memory let through, the bytes from the second-level cache and from device memory, the time until the first
// data is there, and the launch. The constants behind it are guesses until they have been fitted to measurements;
// autotuning times the best few by prediction, so that what counts is their order.
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

// Whether our own kernels compute the problem: dense, 16-bit input, kernel 1 or 3, stride 1 or 2.
bool has_tensor_core_kernel(const ConvProblem& problem);

struct ConvPrediction {
  kernels::ConvConfig config;
  double seconds = 0;  // with the launch
};

// The legal ones of `configs`, each with every `split` that is worth it, best first. `generation` runs on the device.
std::vector<ConvPrediction> predict(const ConvProblem& problem, const DeviceTraits& device, ConvGeneration generation,
                                    std::span<const kernels::ConvConfig> configs);

}  // namespace damoyolo::cuda
