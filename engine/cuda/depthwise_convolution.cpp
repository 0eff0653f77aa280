#include "engine/cuda/depthwise_convolution.h"

#include <span>

#include "engine/cuda/conv_packing.h"
#include "engine/cuda/conv_split.h"
#include "engine/cuda/uploaded.h"
#include "kernels/depthwise_conv.h"

namespace damoyolo::cuda {
namespace {

class DepthwiseKernel : public ConvKernel {
 public:
  DepthwiseKernel(const ConvProblem& problem, const ConvWeights& weights)
      : problem_(problem),
        bare_(split(problem, 0)),
        taps_(pack_taps(problem, weights)),
        bias_(std::as_bytes(std::span(weights.bias))) {}

  std::string name() const override { return kDepthwiseName; }
  std::size_t workspace_bytes() const override { return 0; }

  void run(const ConvPointers& pointers, kernels::Stream stream) override {
    kernels::launch_depthwise_conv(
        input_view(problem_, pointers.in), taps_.data(), problem_.kernel, problem_.stride,
        output_view(problem_, pointers.out),
        remaining_epilogue(problem_, bare_, static_cast<const float*>(bias_.data()), pointers.residual), stream);
  }

 private:
  ConvProblem problem_;
  ConvSplit bare_;  // the sum alone, so that all steps are left to the kernel's epilogue
  Uploaded taps_, bias_;
};

}  // namespace

bool has_depthwise_kernel(const ConvProblem& problem) {
  return problem.groups > 1 && problem.groups == problem.in.c && problem.in.c == problem.out.c &&
         (problem.kernel == 3 || problem.kernel == 5) && (problem.stride == 1 || problem.stride == 2) &&
         problem.out_type == problem.type;
}

std::unique_ptr<ConvKernel> make_depthwise_kernel(const ConvProblem& problem, const ConvWeights& weights) {
  return std::make_unique<DepthwiseKernel>(problem, weights);
}

}  // namespace damoyolo::cuda
