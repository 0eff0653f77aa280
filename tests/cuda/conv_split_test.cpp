// A convolution divided between a library and our epilogue kernel: the host stands in for the library, the kernel runs
// through the SIMT shim.
#include "engine/cuda/conv_split.h"

#include <doctest/doctest.h>

#include <algorithm>

#include "tests/compare.h"
#include "tests/conv_problems.h"
#include "tests/cuda/host_convolution.h"
#include "tests/cuda/host_runtime.h"
#include "tests/cuda/test_values.h"

using namespace damoyolo;
using namespace damoyolo::cuda;
using Residual = ConvProblem::Residual;

namespace {

// 1×1 over a slice of the channels, into a slice.
ConvProblem problem_with(int outputs, DType out_type, Activation act, Residual residual, bool residual_first) {
  ConvProblem problem = convolution_of_slices({2, 4, 6, 16}, 40, {2, 4, 6, outputs}, outputs + 8);
  problem.kernel = 1;
  problem.out_type = out_type;
  problem.act = act;
  problem.residual = residual;
  problem.residual_pixel_stride = residual == Residual::None ? 0 : outputs + 16;
  problem.residual_first = residual_first;
  return problem;
}

std::unique_ptr<ConvKernel> first_part(const ConvProblem& problem, const ConvSplit& parts) {
  ConvWeights weights = weights_of_first(problem, parts, weights_for(problem));
  if (!parts.bias_first) std::ranges::fill(weights.bias, 0.f);
  return std::make_unique<HostConvolution>(parts.first, weights, "host", 64);
}

struct Output {
  std::vector<float> channels;   // the problem's
  bool others_untouched = true;  // of the buffer, which was 7 everywhere
};

Output output_of(ConvKernel& kernel, const ConvProblem& problem) {
  HostRuntime runtime;
  const auto pixels = static_cast<std::size_t>(problem.out.pixels());
  const std::vector<std::uint16_t> in = bf16(values("in", pixels * 40));
  const std::vector<std::uint16_t> residual =
      bf16(values("residual", pixels * static_cast<std::size_t>(problem.residual_pixel_stride)));
  const std::size_t elements = pixels * static_cast<std::size_t>(problem.out_pixel_stride);
  std::vector<float> fp32(elements, 7.f);
  std::vector<std::uint16_t> half(elements, bf16_from_float(7.f));
  const bool wide = problem.out_type == DType::F32;
  void* const out = wide ? static_cast<void*>(fp32.data()) : half.data();
  const auto workspace = device_memory(runtime, kernel.workspace_bytes() + 1);
  kernel.run({in.data(), out, residual.data(), workspace.get()}, {nullptr});
  Output output;
  for (std::size_t i = 0; i < elements; ++i) {
    const float value = wide ? fp32[i] : element_as_float(reinterpret_cast<const std::byte*>(&half[i]), DType::BF16);
    if (i % static_cast<std::size_t>(problem.out_pixel_stride) < static_cast<std::size_t>(problem.out.c))
      output.channels.push_back(value);
    else
      output.others_untouched &= value == 7.f;
  }
  return output;
}

}  // namespace

TEST_CASE("a divided convolution writes what the whole one does, and nothing else") {
  for (const int outputs : {24, 17})
    for (const DType out_type : {DType::BF16, DType::F32})
      for (const Activation act : {Activation::None, Activation::Relu, Activation::Silu})
        for (const Residual residual : {Residual::None, Residual::Same, Residual::Half})
          for (const bool residual_first : {false, true}) {
            const ConvProblem problem = problem_with(outputs, out_type, act, residual, residual_first);
            HostConvolution whole(problem, weights_for(problem), "host", 0);
            const std::vector<float> expected = output_of(whole, problem).channels;
            for (std::size_t fused = 0; fused <= steps_of(problem).size(); ++fused)
              for (const bool dense : {false, true}) {
                const ConvSplit parts = split(problem, fused, dense);
                if (parts.first.residual == Residual::Half) continue;  // no library reads it
                CAPTURE(describe(parts));
                CAPTURE(outputs);
                const auto divided = with_epilogue(first_part(problem, parts), problem, parts, weights_for(problem));
                const Output found = output_of(*divided, problem);
                CHECK(relative_difference(expected, found.channels) < 1e-2);
                CHECK(found.others_untouched);
              }
          }
}

TEST_CASE("what lies between the parts has whole vectors of channels") {
  const ConvProblem head = problem_with(17, DType::F32, Activation::None, Residual::None, true);
  const ConvSplit parts = split(head, 1, true);
  REQUIRE(parts.intermediate);
  CHECK(parts.first.out.c == 24);
  CHECK(parts.first.out_pixel_stride == 24);
  const ConvWeights weights = weights_of_first(head, parts, weights_for(head));
  CHECK(weights.bias.size() == 24);
  CHECK(weights.weight.size() == 24 * 16);
  CHECK(std::ranges::all_of(weights.bias.begin() + 17, weights.bias.end(), [](float b) { return b == 0; }));
  CHECK(weights.weight[17 * 16 - 1] == weights_for(head).weight.back());
  CHECK_THROWS_AS(HostConvolution(parts.first, weights_for(head), "host", 0), Error);

  // A residual has the problem's channels, and what goes straight to the output does, too.
  const ConvProblem residual = problem_with(17, DType::F32, Activation::None, Residual::Same, true);
  CHECK(split(residual, 2, true).first.out.c == 17);
  CHECK(split(head, 1).first.out.c == 17);
}
