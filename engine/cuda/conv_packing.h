// Weights in the order and type that kernels read.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "engine/cuda/convolution.h"

namespace damoyolo::cuda {

// Both throw Error unless the weights have the problem's sizes, [out, in/groups, k, k] and [out].

// [out, k, k, in/groups] in the problem's type: what the libraries read, also as a matrix [out, in] when k is 1.
// channels: where not 0, so many instead of in/groups, zeros after those of the problem.
std::vector<std::byte> pack_channels_last(const ConvProblem& problem, const ConvWeights& weights, int channels = 0);

// [k·k, channels] in the problem's type, of a depthwise convolution: what our kernel reads.
std::vector<std::byte> pack_taps(const ConvProblem& problem, const ConvWeights& weights);

// Rounded to F32, BF16 or F16.
std::vector<std::byte> pack_as(DType type, std::span<const float> values);

}  // namespace damoyolo::cuda
