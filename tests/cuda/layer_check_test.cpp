// What judges kernels on a GPU, judged on the host.
#include "bench/layers/layer_check.h"

#include <doctest/doctest.h>

#include "bench/layers/layer_table.h"
#include "engine/cuda/own_convolution.h"
#include "tests/cuda/host_convolution.h"
#include "tests/cuda/host_runtime.h"

using namespace damoyolo;
using namespace damoyolo::cuda;

namespace {

ConvProblem small(int kernel, int stride) {
  ConvProblem problem;
  problem.in = {2, 6, 10, 16};
  problem.out = {2, 6 / stride, 10 / stride, 24};
  problem.in_pixel_stride = 16;
  problem.out_pixel_stride = problem.residual_pixel_stride = 24;
  problem.kernel = kernel;
  problem.stride = stride;
  problem.act = Activation::Silu;
  problem.type = problem.out_type = DType::BF16;
  return problem;
}

// The host's kernel, wrong at one output.
struct Wrong : HostConvolution {
  Wrong(const ConvProblem& problem, const ConvWeights& weights, int pixel)
      : HostConvolution(problem, weights, "wrong", 0), at(pixel * problem.out_pixel_stride) {}
  void run(const ConvPointers& pointers, kernels::Stream stream) override {
    HostConvolution::run(pointers, stream);
    static_cast<std::uint16_t*>(pointers.out)[at] = bf16_from_float(100);
  }
  int at;
};

}  // namespace

TEST_CASE("a layer check passes what is right, and nothing else") {
  HostRuntime runtime;
  for (const int kernel : {1, 3})
    for (const int stride : {1, 2})
      for (const auto residual :
           {ConvProblem::Residual::None, ConvProblem::Residual::Same, ConvProblem::Residual::Half})
        for (const bool first : {false, true}) {
          ConvProblem problem = small(kernel, stride);
          if (residual == ConvProblem::Residual::Half && stride == 2) continue;  // of an odd size
          problem.residual = residual;
          problem.residual_first = first;
          LayerCheck check(runtime, nullptr, problem);
          HostConvolution right(problem, check.weights(), "right", 0);
          // The weights of the host's kernel are not rounded.
          CHECK(check.relative_error(right) < kLayerTolerance);
          const std::vector<std::byte> output = check.output();
          CHECK(output.size() == static_cast<std::size_t>(problem.out.pixels()) * 24 * 2);
          Wrong wrong(problem, check.weights(), static_cast<int>(problem.out.pixels()) - 1);
          CHECK(check.relative_error(wrong) > 0.1);
          CHECK(check.output() != output);
          // A missing activation, and a window that is off by one, as a different stride would have it.
          ConvProblem other = problem;
          other.act = Activation::None;
          HostConvolution plain(other, check.weights(), "plain", 0);
          CHECK(check.relative_error(plain) > 0.1);
        }
}

TEST_CASE("a layer check looks at both outputs of a pair") {
  HostRuntime runtime;
  for (const bool keep : {false, true}) {
    ConvProblem problem = small(3, 1);
    problem.then = {16, 24, Activation::Relu};
    problem.keep = keep;
    LayerCheck check(runtime, nullptr, problem);
    CHECK(check.channels() == (keep ? 40 : 16));
    HostConvolution right(problem, check.weights(), "right", 0);
    CHECK(check.relative_error(right) < kLayerTolerance);
    CHECK(check.found().size() == check.pixels().size() * static_cast<std::size_t>(check.channels()));
    CHECK(check.output().size() == static_cast<std::size_t>(problem.out.pixels()) * (keep ? 48 : 24) * 2);
    ConvProblem other = problem;
    other.then.act = Activation::None;
    HostConvolution plain(other, check.weights(), "plain", 0);
    CHECK(check.relative_error(plain) > 0.1);
    if (!keep) continue;
    Wrong wrong(problem, check.weights(), static_cast<int>(problem.out.pixels()) - 1);
    CHECK(check.relative_error(wrong) > 0.1);
  }
}

TEST_CASE("layers as small as they come are right by our own kernels") {
  HostRuntime runtime;
  DeviceTraits device = device_traits({90, 132, 1.98e9, 2.619e9, 5120, 50 << 20, 228 << 10});
  int checked = 0;
  for (const Layer& layer : read_layers()) {
    // On the host, only where there is little to compute.
    ConvProblem problem = layer.problem;
    if (problem.in.c > 64 || problem.out.c > 64 || problem.in.h % 2 != 0) continue;
    problem.in.h = problem.in.w = 6;
    problem.out.h = problem.out.w = 6 / problem.stride;
    if (problem.residual == ConvProblem::Residual::Half && problem.stride == 2) continue;
    if (++checked % 6 != 0) continue;
    CAPTURE(describe(problem));
    LayerCheck check(runtime, nullptr, problem);
    for (const OwnConvolution& one : own_convolutions(problem, device, own_kernels(), 1)) {
      const auto kernel = make_own_kernel(problem, *one.kernel, one.config, check.weights());
      CAPTURE(kernel->name());
      CHECK(check.relative_error(*kernel) < kLayerTolerance);
    }
  }
  CHECK(checked >= 12);
}
