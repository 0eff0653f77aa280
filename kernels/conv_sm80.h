// Convolution by mma.sync and cp.async, for compute capability 8.0 and later.
#pragma once

#include <span>

#include "kernels/conv.h"

namespace damoyolo::kernels {

// What is compiled, each with split 1.
std::span<const ConvConfig> conv_sm80_configs();

// Whether launch_conv_sm80 takes the convolution, its pointers aside, with this configuration.
bool conv_sm80_fits(const Convolution& convolution, const ConvConfig& config);

ConvMemory conv_sm80_memory(const Convolution& convolution, const ConvConfig& config);

// Throws Error where conv_sm80_fits() is false or memory is missing.
void launch_conv_sm80(const Convolution& convolution, const ConvConfig& config, Stream stream);

}  // namespace damoyolo::kernels
