// Dividing a convolution between a library, which computes a first part of it, and our epilogue kernel; and a pair
// into its two.
//
// After the sum come steps in a fixed order: bias; residual and activation, in the order the node says. A library can
// fuse the first few, and the epilogue kernel does all the others in one more pass over the output.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "engine/cuda/convolution.h"
#include "kernels/epilogue.h"

namespace damoyolo::cuda {

enum class ConvStep : std::uint8_t { Bias, Residual, Activation };

// In order. A residual comes before a missing activation, since that makes no difference and suits libraries.
std::vector<ConvStep> steps_of(const ConvProblem& problem);

// How many of the steps each library can fuse. cuDNN reads residuals of the output's size only. cuBLASLt knows ReLU
// alone, adds only residuals that have the output's type, and nothing after the activation.
std::size_t steps_in_cudnn(const ConvProblem& problem);
std::size_t steps_in_cublaslt(const ConvProblem& problem);

struct ConvSplit {
  ConvProblem first;       // what the library computes, completely
  bool bias_first = true;  // whether that includes the bias
  bool epilogue = false;   // whether anything is left to our kernel
  // Whether the first part's result, dense, lies at the start of the workspace, not in out. Then it may have more
  // channels than the problem, to fill whole vectors: engines would copy other tensors into that shape, and back.
  bool intermediate = false;
};

// The library does the first `fused` steps. In between, results are stored in the output's type, or in the residual's
// when that is still to come, because the epilogue kernel takes its input and residual in one type. With `dense`, the
// library writes a dense tensor of the input's type in any case, which our kernel then brings into the output, if only
// to convert it: for libraries that write nothing else well.
ConvSplit split(const ConvProblem& problem, std::size_t fused, bool dense = false);

// What the kernel has left to do. bias: on the device.
kernels::Epilogue remaining_epilogue(const ConvProblem& problem, const ConvSplit& split, const float* bias,
                                     const void* residual);

// "conv+bias+residual+relu": the first part of a split; with "+store" when its result is an intermediate one.
std::string describe(const ConvSplit& split);

// The weights of the first part: zeros for the channels that only it has.
ConvWeights weights_of_first(const ConvProblem& problem, const ConvSplit& split, ConvWeights weights);

// The convolutions of a pair, each by itself.
ConvProblem first_of(const ConvProblem& pair);
ConvProblem second_of(const ConvProblem& pair);

// Throws Error unless every tensor is aligned as the problem says: libraries would fault, and only on the device.
void require_aligned(const ConvProblem& problem, const ConvPointers& pointers);

// Bytes of a dense tensor in the workspace, rounded up to the alignment of workspaces.
std::size_t workspace_bytes_of(const Shape& shape, DType type);

kernels::TensorView input_view(const ConvProblem& problem, const void* data);
kernels::TensorView output_view(const ConvProblem& problem, void* data);

// The kernel for a whole problem from the one for its first part. Returns `first` itself when nothing is left.
std::unique_ptr<ConvKernel> with_epilogue(std::unique_ptr<ConvKernel> first, const ConvProblem& problem,
                                          const ConvSplit& split, const ConvWeights& weights);

}  // namespace damoyolo::cuda
