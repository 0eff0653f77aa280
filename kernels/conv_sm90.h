// Convolution by wgmma and the bulk tensor copies, for compute capability 9.0 alone.
#pragma once

#include <span>

#include "kernels/conv.h"

namespace damoyolo::kernels {

// Shares of a sum meet in a cluster of blocks: no more than there are in every one.
constexpr int kMaxConvSm90Split = 8;

// What is compiled, each with split 1. Tiles in row-major order (columns 0) are for kernel 1 and stride 1 alone, three
// taps in a step for kernel 3 and stride 1. A pair (`then`) is not split, and its outputs, residual and biases begin
// at multiples of 16 bytes. The machine code is made for 9.0a: launch it on no other device, and where CUDA_ARCHS
// named that.
std::span<const ConvConfig> conv_sm90_configs();

// Whether launch_conv_sm90 takes the convolution, its pointers aside, with this configuration.
bool conv_sm90_fits(const Convolution& convolution, const ConvConfig& config);

// None: a split's sums stay in shared memory.
ConvMemory conv_sm90_memory(const Convolution& convolution, const ConvConfig& config);

// Throws Error where conv_sm90_fits() is false.
void launch_conv_sm90(const Convolution& convolution, const ConvConfig& config, Stream stream);

}  // namespace damoyolo::kernels
