#include "engine/cuda/conv_split.h"

#include <algorithm>
#include <cstdint>
#include <span>

#include "engine/core/error.h"
#include "engine/cuda/uploaded.h"
#include "engine/cuda/whole_vectors.h"

namespace damoyolo::cuda {
namespace {

bool contains(const std::vector<ConvStep>& steps, ConvStep step) {
  return std::find(steps.begin(), steps.end(), step) != steps.end();
}

// As many steps from the first on as `fuses` allows.
template <typename Predicate>
std::size_t leading(const std::vector<ConvStep>& steps, Predicate fuses) {
  return static_cast<std::size_t>(std::find_if_not(steps.begin(), steps.end(), fuses) - steps.begin());
}

kernels::TensorView view(const Shape& shape, DType type, int pixel_stride, const void* data) {
  // Views of inputs are only read.
  return {const_cast<void*>(data), type, shape.n, shape.h, shape.w, shape.c, pixel_stride, 0};
}

class KernelWithEpilogue : public ConvKernel {
 public:
  KernelWithEpilogue(std::unique_ptr<ConvKernel> first, const ConvProblem& problem, const ConvSplit& split,
                     const ConvWeights& weights)
      : first_(std::move(first)), problem_(problem), split_(split) {
    if (!split.bias_first) bias_ = Uploaded(std::as_bytes(std::span(weights.bias)));
  }

  std::string name() const override { return first_->name(); }

  std::size_t workspace_bytes() const override { return first_workspace() + first_->workspace_bytes(); }

  void run(const ConvPointers& pointers, kernels::Stream stream) override {
    ConvPointers first = pointers;
    if (split_.intermediate) first.out = pointers.workspace;
    first.workspace = static_cast<std::byte*>(pointers.workspace) + first_workspace();
    first_->run(first, stream);
    kernels::TensorView sums = output_view(split_.first, first.out);
    sums.c = problem_.out.c;
    kernels::launch_epilogue(
        sums, output_view(problem_, pointers.out),
        remaining_epilogue(problem_, split_, static_cast<const float*>(bias_.data()), pointers.residual), stream);
  }

 private:
  std::size_t first_workspace() const {
    return split_.intermediate ? workspace_bytes_of(split_.first.out, split_.first.out_type) : 0;
  }

  std::unique_ptr<ConvKernel> first_;
  ConvProblem problem_;
  ConvSplit split_;
  Uploaded bias_;
};

}  // namespace

std::vector<ConvStep> steps_of(const ConvProblem& problem) {
  std::vector<ConvStep> steps = {ConvStep::Bias};
  if (problem.act != Activation::None) steps.push_back(ConvStep::Activation);
  if (problem.residual != ConvProblem::Residual::None)
    steps.insert(problem.residual_first ? steps.begin() + 1 : steps.end(), ConvStep::Residual);
  return steps;
}

std::size_t steps_in_cudnn(const ConvProblem& problem) {
  return leading(steps_of(problem), [&](ConvStep step) {
    return step != ConvStep::Residual || problem.residual == ConvProblem::Residual::Same;
  });
}

std::size_t steps_in_cublaslt(const ConvProblem& problem) {
  bool activated = false;
  return leading(steps_of(problem), [&](ConvStep step) {
    const bool last = activated;
    activated |= step == ConvStep::Activation;
    switch (step) {
      case ConvStep::Bias: return true;
      case ConvStep::Activation: return problem.act == Activation::Relu;
      case ConvStep::Residual:
        return !last && problem.residual == ConvProblem::Residual::Same && problem.out_type == problem.type;
    }
    return false;
  });
}

ConvSplit split(const ConvProblem& problem, std::size_t fused, bool dense) {
  const std::vector<ConvStep> steps = steps_of(problem);
  const auto middle = steps.begin() + static_cast<std::ptrdiff_t>(std::min(fused, steps.size()));
  const std::vector<ConvStep> done(steps.begin(), middle), left(middle, steps.end());
  ConvSplit split;
  split.first = problem;
  split.bias_first = contains(done, ConvStep::Bias);
  if (contains(left, ConvStep::Activation)) split.first.act = Activation::None;
  if (contains(left, ConvStep::Residual)) {
    split.first.residual = ConvProblem::Residual::None;
    split.first.residual_pixel_stride = 0;
  }
  if (dense || contains(left, ConvStep::Residual)) split.first.out_type = problem.type;
  split.intermediate =
      split.first.out_type != problem.out_type || (dense && problem.out_pixel_stride != problem.out.c);
  split.epilogue = split.intermediate || !left.empty();
  if (split.intermediate) {
    // A residual that the library adds has the problem's channels alone.
    if (split.first.residual == ConvProblem::Residual::None && problem.groups == 1)
      split.first.out.c = in_whole_vectors(problem.out.c, split.first.out_type);
    split.first.out_pixel_stride = split.first.out.c;
  }
  return split;
}

kernels::Epilogue remaining_epilogue(const ConvProblem& problem, const ConvSplit& split, const float* bias,
                                     const void* residual) {
  kernels::Epilogue epilogue;
  if (!split.bias_first) epilogue.bias = bias;
  if (split.first.act != problem.act) epilogue.act = problem.act;
  epilogue.residual_first = problem.residual_first;
  if (split.first.residual != problem.residual) {
    Shape shape = problem.out;
    if (problem.residual == ConvProblem::Residual::Half) {
      shape.h /= 2;
      shape.w /= 2;
    }
    epilogue.residual = view(shape, problem.type, problem.residual_pixel_stride, residual);
  }
  return epilogue;
}

std::string describe(const ConvSplit& split) {
  std::string text = "conv";
  for (const ConvStep step : steps_of(split.first)) {
    if (step == ConvStep::Bias && split.bias_first) text += "+bias";
    if (step == ConvStep::Residual) text += "+residual";
    if (step == ConvStep::Activation) text.append("+").append(name_of(split.first.act));
  }
  if (split.intermediate) text += "+store";
  return text;
}

ConvWeights weights_of_first(const ConvProblem& problem, const ConvSplit& split, ConvWeights weights) {
  const auto more = static_cast<std::size_t>(split.first.out.c - problem.out.c);
  const auto of_output = static_cast<std::size_t>(problem.in.c / problem.groups) * problem.kernel * problem.kernel;
  weights.weight.insert(weights.weight.end(), more * of_output, 0.f);
  weights.bias.insert(weights.bias.end(), more, 0.f);
  return weights;
}

ConvProblem first_of(const ConvProblem& pair) {
  ConvProblem first = pair;
  first.then = {};
  first.keep = true;
  return first;
}

ConvProblem second_of(const ConvProblem& pair) {
  ConvProblem second;
  second.in = second.out = pair.out;
  second.out.c = pair.then.c;
  second.in_pixel_stride = pair.out_pixel_stride;
  second.out_pixel_stride = pair.then.pixel_stride;
  second.act = pair.then.act;
  second.type = second.out_type = pair.type;
  second.allow_tf32 = pair.allow_tf32;
  second.alignment = pair.alignment;
  return second;
}

void require_aligned(const ConvProblem& problem, const ConvPointers& pointers) {
  for (const void* tensor : {pointers.in, static_cast<const void*>(pointers.out), pointers.residual})
    if (reinterpret_cast<std::uintptr_t>(tensor) % static_cast<std::uintptr_t>(problem.alignment) != 0)
      throw Error("a tensor of a convolution lies at {}, which is not a multiple of {}", fmt::ptr(tensor),
                  problem.alignment);
}

std::size_t workspace_bytes_of(const Shape& shape, DType type) {
  constexpr std::size_t kAlignment = 256;
  return (static_cast<std::size_t>(shape.elements()) * size_of(type) + kAlignment - 1) / kAlignment * kAlignment;
}

kernels::TensorView input_view(const ConvProblem& problem, const void* data) {
  return view(problem.in, problem.type, problem.in_pixel_stride, data);
}

kernels::TensorView output_view(const ConvProblem& problem, void* data) {
  return view(problem.out, problem.out_type, problem.out_pixel_stride, data);
}

std::unique_ptr<ConvKernel> with_epilogue(std::unique_ptr<ConvKernel> first, const ConvProblem& problem,
                                          const ConvSplit& split, const ConvWeights& weights) {
  if (!split.epilogue) return first;
  return std::make_unique<KernelWithEpilogue>(std::move(first), problem, split, weights);
}

}  // namespace damoyolo::cuda
