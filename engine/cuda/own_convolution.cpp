#include "engine/cuda/own_convolution.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstddef>
#include <utility>

#include "engine/core/error.h"
#include "engine/cuda/conv_packing.h"
#include "engine/cuda/conv_split.h"
#include "engine/cuda/uploaded.h"
#include "engine/cuda/whole_vectors.h"
#include "kernels/conv_sm80.h"
#include "kernels/conv_sm90.h"
#include "kernels/launch.h"

namespace damoyolo::cuda {
namespace {

using kernels::ConvConfig;
using kernels::Convolution;

// Of a few, so many may differ in split, sharing and columns alone: predictions are surer of those than of tiles.
constexpr int kOfOneTile = 2;

bool is_read_in_place(const ConvProblem& problem) {
  const auto is_whole = [&](int channels) { return channels == in_whole_vectors(channels, problem.type); };
  return is_whole(problem.in.c) && is_whole(problem.in_pixel_stride) && problem.alignment >= 16;
}

// What the kernel computes: the problem itself, or with an input of its own in whole vectors of channels.
ConvProblem for_kernel(ConvProblem problem) {
  if (is_read_in_place(problem)) return problem;
  problem.in.c = problem.in_pixel_stride = in_whole_vectors(problem.in.c, problem.type);
  return problem;
}

// With a place that stands for all tensors, since they have none yet.
Convolution convolution_of(const ConvProblem& problem) {
  alignas(256) static std::byte anywhere{};
  Convolution convolution;
  convolution.x = input_view(problem, &anywhere);
  convolution.kernel = problem.kernel;
  convolution.stride = problem.stride;
  convolution.y = output_view(problem, &anywhere);
  // The sum alone is split off, so that all steps are left to the kernel's epilogue.
  convolution.epilogue = remaining_epilogue(problem, split(problem, 0), nullptr, &anywhere);
  if (problem.then.c == 0) return convolution;
  convolution.then.y = output_view(second_of(problem), &anywhere);
  convolution.then.epilogue.act = problem.then.act;
  convolution.keep = problem.keep;
  return convolution;
}

class OwnConvKernel : public ConvKernel {
 public:
  OwnConvKernel(const ConvProblem& problem, const OwnKernel& kernel, const ConvConfig& config,
                const ConvWeights& weights)
      : given_(problem),
        problem_(for_kernel(problem)),
        kernel_(kernel),
        config_(config),
        convolution_(convolution_of(problem_)),
        memory_(kernel.memory(convolution_, config)),
        weights_(pack_channels_last(problem, weights, problem_.in.c)),
        bias_(std::as_bytes(std::span(weights.bias))) {
    if (problem.then.c > 0) {
      then_weights_ = Uploaded(pack_channels_last(second_of(problem), {weights.then_weight, weights.then_bias}));
      then_bias_ = Uploaded(std::as_bytes(std::span(weights.then_bias)));
      convolution_.then.weights = then_weights_.data();
      convolution_.then.epilogue.bias = static_cast<const float*>(then_bias_.data());
    }
    if (memory_.tickets > 0) tickets_ = ZeroedMemory(memory_.tickets * sizeof(unsigned));
    convolution_.weights = weights_.data();
    convolution_.epilogue.bias = static_cast<const float*>(bias_.data());
    convolution_.tickets = static_cast<unsigned*>(tickets_.data());
  }

  std::string name() const override { return own_name(kernel_, config_); }
  std::size_t workspace_bytes() const override { return copy_bytes() + memory_.workspace_bytes; }
  DeviceBytes weights() const override {
    const auto taps = static_cast<std::size_t>(problem_.kernel * problem_.kernel * problem_.in.c);
    return {weights_.data(), taps * static_cast<std::size_t>(problem_.out.c) * size_of(problem_.type)};
  }

  void run(const ConvPointers& pointers, kernels::Stream stream) override {
    Convolution convolution = convolution_;
    convolution.x.data = const_cast<void*>(pointers.in);
    if (!is_read_in_place(given_)) {
      copy_input(pointers, stream);
      convolution.x.data = pointers.workspace;
    }
    convolution.y.data = pointers.out;
    if (problem_.residual != ConvProblem::Residual::None)
      convolution.epilogue.residual.data = const_cast<void*>(pointers.residual);
    convolution.workspace = static_cast<std::byte*>(pointers.workspace) + copy_bytes();
    convolution.next = pointers.next.data;
    convolution.next_bytes = pointers.next.size;
    convolution.then.y.data = pointers.then_out;
    kernel_.launch(convolution, config_, stream);
  }

 private:
  std::size_t copy_bytes() const {
    return is_read_in_place(given_) ? 0 : workspace_bytes_of(problem_.in, problem_.type);
  }

  // To the start of the workspace, with zeros for the channels that only the kernel has.
  void copy_input(const ConvPointers& pointers, kernels::Stream stream) const {
    kernels::TensorView copy = input_view(problem_, pointers.workspace);
    copy.c = given_.in.c;
    kernels::check(cudaMemsetAsync(pointers.workspace, 0, copy_bytes(), stream.handle), "memset");
    // After what is no kernel, a kernel cannot start early.
    kernels::launch_epilogue(input_view(given_, pointers.in), copy, {}, {stream.handle});
  }

  ConvProblem given_, problem_;
  const OwnKernel& kernel_;
  ConvConfig config_;
  Convolution convolution_;  // but for the tensors and the workspace
  kernels::ConvMemory memory_;
  Uploaded weights_, bias_, then_weights_, then_bias_;
  ZeroedMemory tickets_;
};

}  // namespace

std::span<const OwnKernel> own_kernels() {
  static constexpr OwnKernel kKernels[] = {
#ifndef DAMOYOLO_WITHOUT_SM90A
      {ConvGeneration::Sm90, "sm90", kernels::conv_sm90_configs, kernels::conv_sm90_fits, kernels::conv_sm90_memory,
       kernels::launch_conv_sm90},
#endif
      {ConvGeneration::Sm80, "sm80", kernels::conv_sm80_configs, kernels::conv_sm80_fits, kernels::conv_sm80_memory,
       kernels::launch_conv_sm80},
  };
  return kKernels;
}

bool own_kernels_run_on(int compute_capability) {
  DeviceTraits device;
  device.compute_capability = compute_capability;
  return std::ranges::any_of(own_kernels(),
                             [&](const OwnKernel& kernel) { return runs_on(kernel.generation, device); });
}

std::string describe_own_kernels(int compute_capability) {
  return own_kernels_run_on(compute_capability) ? "our own kernels compute in bf16 and fp16"
                                                : "our own kernels need compute capability 8.0 or later";
}

std::vector<OwnConvolution> own_convolutions(const ConvProblem& problem, const DeviceTraits& device,
                                             std::span<const OwnKernel> kernels, std::size_t most) {
  std::vector<OwnConvolution> all;
  if (!has_tensor_core_kernel(problem)) return all;
  const ConvProblem computed = for_kernel(problem);
  const Convolution convolution = convolution_of(computed);
  for (const OwnKernel& kernel : kernels) {
    if (!runs_on(kernel.generation, device)) continue;
    std::size_t taken = 0;
    const std::vector<ConvPrediction> predictions = predict(computed, device, kernel.generation, kernel.configs());
    for (const ConvPrediction& one : predictions) {
      if (taken == most) break;
      if (!kernel.fits(convolution, one.config)) continue;
      const auto has_tile = [&](const OwnConvolution& other) {
        return other.kernel == &kernel && other.config.m == one.config.m && other.config.n == one.config.n &&
               other.config.k == one.config.k && other.config.stages == one.config.stages &&
               other.config.taps == one.config.taps && other.config.then == one.config.then &&
               other.config.pingpong == one.config.pingpong;
      };
      if (most < predictions.size() && std::ranges::count_if(all, has_tile) == kOfOneTile) continue;
      all.push_back({&kernel, one.config, one.seconds});
      ++taken;
    }
  }
  std::ranges::stable_sort(all, {}, &OwnConvolution::predicted_seconds);
  return all;
}

std::string own_name(const OwnKernel& kernel, const ConvConfig& config) {
  std::string name = fmt::format("own:{}:{}x{}x{}:s{}", kernel.name, config.m, config.n, config.k, config.stages);
  if (config.columns > 0) name += fmt::format(",c{}", config.columns);
  if (config.taps > 1) name += fmt::format(",taps{}", config.taps);
  if (config.pingpong) name += ",pingpong";
  if (config.sharing > 1) name += ",shared";
  if (config.split > 1) name += fmt::format(",split{}", config.split);
  if (config.then > 0) name += fmt::format(",then{}", config.then);
  return name;
}

std::unique_ptr<ConvKernel> make_own_kernel(const ConvProblem& problem, const OwnKernel& kernel,
                                            const ConvConfig& config, const ConvWeights& weights) {
  return std::make_unique<OwnConvKernel>(problem, kernel, config, weights);
}

}  // namespace damoyolo::cuda
