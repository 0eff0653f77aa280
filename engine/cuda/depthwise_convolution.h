// Depthwise convolutions by our own kernel.
#pragma once

#include <memory>

#include "engine/cuda/convolution.h"

namespace damoyolo::cuda {

inline constexpr const char* kDepthwiseName = "own:depthwise";

// Whether kernels/depthwise_conv computes the problem, with its bias, residual and activation.
bool has_depthwise_kernel(const ConvProblem& problem);

std::unique_ptr<ConvKernel> make_depthwise_kernel(const ConvProblem& problem, const ConvWeights& weights);

}  // namespace damoyolo::cuda
