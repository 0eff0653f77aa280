// What the real cuDNN says about our convolutions on an H100 that need not be here: it proposes kernels and makes
// their plans without a GPU, and only runs nothing.
#ifdef DAMOYOLO_CUDA

#include <doctest/doctest.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "bench/layers/layer_table.h"
#include "engine/core/error.h"
#include "engine/cuda/conv_methods.h"
#include "engine/cuda/conv_problem.h"
#include "engine/cuda/convolution.h"
#include "engine/cuda/cudnn_convolution.h"
#include "engine/cuda/described_device.h"
#include "engine/cuda/plan.h"
#include "engine/model/build.h"
#include "engine/passes/passes.h"
#include "tests/conv_problems.h"
#include "tests/skip.h"

using namespace damoyolo;
using namespace damoyolo::cuda;
using Configs = std::vector<std::shared_ptr<const CudnnConfig>>;

namespace {

ConvProblem dense_3x3(DType type, Activation act, ConvProblem::Residual residual) {
  ConvProblem problem = convolution_of_slices({1, 40, 40, 128}, 128, {1, 40, 40, 128}, 128);
  problem.type = problem.out_type = type;
  problem.act = act;
  problem.residual = residual;
  problem.residual_pixel_stride = residual == ConvProblem::Residual::None ? 0 : problem.out.c;
  return problem;
}

bool has_ready_made(const Configs& configs) {
  return std::ranges::any_of(configs, [](const auto& config) { return !config->compiled; });
}

// The distinct convolutions of all variants, as the plan of a GPU has them: slices, residuals, padded channels.
std::vector<ConvProblem> problems_of_variants(DType type) {
  std::vector<ConvProblem> problems;
  for (const ModelSpec& spec : released_variants()) {
    Graph graph = build_model(spec, 1, spec.input_height, spec.input_width).graph;
    optimize(graph);
    PlanOptions options;
    options.activations = type;
    for (const Step& step : lower(graph, options).steps) {
      if (step.kind != StepKind::Conv) continue;
      const ConvProblem problem = conv_problem(graph, step, false);
      if (std::ranges::count(problems, problem) == 0) problems.push_back(problem);
    }
  }
  return problems;
}

}  // namespace

#define SKIP_WITHOUT_CUDNN(libraries) \
  if ((libraries).cudnn == nullptr) return test::skip(fmt::format("{}", fmt::join((libraries).report, "; ")))

TEST_CASE("cuDNN's ready-made kernels fuse bias, residual and ReLU") {
  const Libraries libraries = libraries_for(kH100);
  SKIP_WITHOUT_CUDNN(libraries);
  for (const DType type : {DType::BF16, DType::F16, DType::F32})
    for (const auto residual : {ConvProblem::Residual::None, ConvProblem::Residual::Same})
      for (const Activation act : {Activation::None, Activation::Relu}) {
        const ConvProblem problem = dense_3x3(type, act, residual);
        const ConvSplit whole = split(problem, steps_of(problem).size());
        CAPTURE(name_of(type));
        CAPTURE(describe(whole));
        CHECK(has_ready_made(cudnn_configs(*libraries.cudnn, whole)));
      }
}

TEST_CASE("cuDNN has a ready-made kernel for every convolution of every variant") {
  const Libraries libraries = libraries_for(kH100);
  SKIP_WITHOUT_CUDNN(libraries);
  for (const DType type : {DType::BF16, DType::F32}) {
    const std::vector<ConvProblem> problems = problems_of_variants(type);
    CHECK(problems.size() > 200);
    for (const ConvProblem& problem : problems) {
      if (problem.groups > 1) continue;  // our depthwise kernel is in front of cuDNN's
      CAPTURE(name_of(type));
      CAPTURE(describe(problem));
      bool found = false;
      for (const ConvMethod& method : conv_methods(problem, {true, false, libraries.device})) {
        const Configs configs = cudnn_configs(*libraries.cudnn, method.split);
        if (!has_ready_made(configs)) continue;
        CHECK_NOTHROW(cudnn_plan(*libraries.cudnn, *configs.front()));
        found = true;
        break;
      }
      CHECK(found);
    }
  }
}

TEST_CASE("cuDNN makes a plan of all that it proposes, and names tell them apart") {
  const Libraries libraries = libraries_for(kH100);
  SKIP_WITHOUT_CUDNN(libraries);
  for (const DType type : {DType::BF16, DType::F16, DType::F32}) {
    const ConvProblem problem = dense_3x3(type, Activation::Relu, ConvProblem::Residual::Same);
    const Configs configs = cudnn_configs(*libraries.cudnn, split(problem, 3), Proposals::All);
    CHECK(configs.size() > 2);
    std::set<std::string> names;
    for (const auto& config : configs) {
      CAPTURE(config->name);
      CHECK(names.insert(config->name).second);
      if (config->compiled) continue;
      const CudnnDescriptor plan = cudnn_plan(*libraries.cudnn, *config);
      CHECK(plan.get<std::int64_t>(CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE) == config->workspace_bytes);
    }
  }
}

TEST_CASE("cuDNN proposes for the device that is described") {
  DeviceProperties turing = kH100;
  turing.compute_capability = 75;
  turing.multiprocessors = 40;
  turing.shared_bytes = 64 << 10;
  const Libraries h100 = libraries_for(kH100), t4 = libraries_for(turing);
  SKIP_WITHOUT_CUDNN(h100);
  const auto configs = [](const Libraries& libraries, DType type) {
    return cudnn_configs(*libraries.cudnn, split(dense_3x3(type, Activation::Relu, ConvProblem::Residual::None), 2),
                         Proposals::All);
  };
  CHECK(has_ready_made(configs(t4, DType::F16)));
  // Tensor cores take BF16 from 8.0 on.
  CHECK(configs(h100, DType::BF16).size() > configs(t4, DType::BF16).size());
}

#endif
