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
#include "bench/layers/variant_plan.h"
#include "engine/core/error.h"
#include "engine/cuda/conv_methods.h"
#include "engine/cuda/convolution.h"
#include "engine/cuda/cudnn_convolution.h"
#include "engine/cuda/described_device.h"
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

// A device of that compute capability; what else it has matters less.
DeviceProperties of_capability(int compute_capability) {
  DeviceProperties device = kH100;
  device.compute_capability = compute_capability;
  if (compute_capability % 10 != 0 || compute_capability == 120) device.shared_bytes = 64 << 10;
  return device;
}

// The distinct dense convolutions of a variant, behind those of others.
void add_problems(const ModelSpec& spec, DType type, std::vector<ConvProblem>& problems) {
  for (const ConvProblem& problem : dense_convolutions(spec, type))
    if (std::ranges::count(problems, problem) == 0) problems.push_back(problem);
}

// Whether a plan without autotuning finds a kernel that cuDNN need not compile.
bool is_computed(const ConvProblem& problem, const Libraries& libraries) {
  for (const ConvMethod& method : conv_methods(problem, {true, false, libraries.device})) {
    const Configs configs = cudnn_configs(*libraries.cudnn, method.split);
    const CudnnConfig* found = first_ready_made(configs);
    if (found == nullptr) continue;
    cudnn_plan(*libraries.cudnn, *found);
    return true;
  }
  return false;
}

void check_all_computed(const std::vector<ConvProblem>& problems, const Libraries& libraries) {
  for (const ConvProblem& problem : problems) {
    CAPTURE(libraries.device.compute_capability);
    CAPTURE(name_of(problem.type));
    CAPTURE(describe(problem));
    CHECK(is_computed(problem, libraries));
  }
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
        CHECK(first_ready_made(cudnn_configs(*libraries.cudnn, whole)) != nullptr);
      }
}

TEST_CASE("cuDNN has a ready-made kernel for every convolution of every variant") {
  const Libraries libraries = libraries_for(kH100);
  SKIP_WITHOUT_CUDNN(libraries);
  for (const DType type : {DType::BF16, DType::F32}) {
    std::vector<ConvProblem> problems;
    for (const ModelSpec& spec : released_variants()) add_problems(spec, type, problems);
    CHECK(problems.size() > 150);
    check_all_computed(problems, libraries);
  }
}

TEST_CASE("cuDNN has a ready-made kernel for every convolution of S on every architecture") {
  std::vector<ConvProblem> problems;
  add_problems(released_variant("S"), DType::F16, problems);
  for (const int compute_capability : {75, 80, 86, 89, 100, 120}) {
    const Libraries libraries = libraries_for(of_capability(compute_capability));
    SKIP_WITHOUT_CUDNN(libraries);
    check_all_computed(problems, libraries);
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
  const Libraries h100 = libraries_for(kH100), t4 = libraries_for(of_capability(75));
  SKIP_WITHOUT_CUDNN(h100);
  const auto configs = [](const Libraries& libraries, DType type) {
    return cudnn_configs(*libraries.cudnn, split(dense_3x3(type, Activation::Relu, ConvProblem::Residual::None), 2),
                         Proposals::All);
  };
  CHECK(first_ready_made(configs(t4, DType::F16)) != nullptr);
  // Tensor cores take BF16 from 8.0 on.
  CHECK(configs(h100, DType::BF16).size() > configs(t4, DType::BF16).size());
}

#endif
