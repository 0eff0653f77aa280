// Convolutions by our own tensor-core kernels, kernels/conv.h.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "engine/cuda/conv_heuristics.h"
#include "engine/cuda/convolution.h"
#include "kernels/conv.h"

namespace damoyolo::cuda {

// The kernel of one generation. Tests bring their own.
struct OwnKernel {
  ConvGeneration generation{};
  const char* name = "";  // "sm80"
  std::span<const kernels::ConvConfig> (*configs)() = nullptr;
  bool (*fits)(const kernels::Convolution&, const kernels::ConvConfig&) = nullptr;
  kernels::ConvMemory (*memory)(const kernels::Convolution&, const kernels::ConvConfig&) = nullptr;
  void (*launch)(const kernels::Convolution&, const kernels::ConvConfig&, kernels::Stream) = nullptr;
};

// All that are compiled, newest first. With DAMOYOLO_WITHOUT_SM90A there is no code for that architecture, and no
// other stands in for it.
std::span<const OwnKernel> own_kernels();

// Whether one of them runs on devices of a compute capability, 10·major + minor; and in words: "our own kernels
// compute in bf16 and fp16", or why they do not.
bool own_kernels_run_on(int compute_capability);
std::string describe_own_kernels(int compute_capability);

// A kernel with its configuration.
struct OwnConvolution {
  const OwnKernel* kernel = nullptr;
  kernels::ConvConfig config;
  double predicted_seconds = 0;
};

// Those of `kernels` that run on the device and take the problem, best first by prediction; of each kernel at most
// `most`, and then no more than a few of one tile.
std::vector<OwnConvolution> own_convolutions(const ConvProblem& problem, const DeviceTraits& device,
                                             std::span<const OwnKernel> kernels, std::size_t most);

// "own:sm90:128x64x64:s4,c16,split2": the tile, stages, columns of a tile if it is a rectangle, split if there is one.
// Between them "taps3", "pingpong" and "shared", what the configuration says of them; at last "then64", the output
// channels of a tile of the convolution behind it.
std::string own_name(const OwnKernel& kernel, const kernels::ConvConfig& config);

// All of the problem, the convolution behind it included, in one launch. Only where the input's channels do not fill
// 16 bytes, or a tensor does not begin at a multiple of them, the input is copied first: four layers of Ns.
std::unique_ptr<ConvKernel> make_own_kernel(const ConvProblem& problem, const OwnKernel& kernel,
                                            const kernels::ConvConfig& config, const ConvWeights& weights);

}  // namespace damoyolo::cuda
