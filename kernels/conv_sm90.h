// Convolution by wgmma and the bulk tensor copies, for compute capability 9.0 alone.
#pragma once

#include <span>

#include "kernels/conv.h"

namespace damoyolo::kernels {

// What is compiled, each with split 1. Tiles in row-major order (columns 0) are for kernel 1 and stride 1 alone. The
// machine code is made for 9.0a: launch it on no other device, and where CUDA_ARCHS named that.
std::span<const ConvConfig> conv_sm90_configs();

// Whether launch_conv_sm90 takes the convolution, its pointers aside, with this configuration.
bool conv_sm90_fits(const Convolution& convolution, const ConvConfig& config);

ConvMemory conv_sm90_memory(const Convolution& convolution, const ConvConfig& config);

// Throws Error where conv_sm90_fits() is false or memory is missing.
void launch_conv_sm90(const Convolution& convolution, const ConvConfig& config, Stream stream);

}  // namespace damoyolo::kernels
