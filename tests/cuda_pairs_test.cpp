// Whole networks on a GPU whose pairs of convolutions our own kernels compute in one launch, beside two launches.
#ifdef DAMOYOLO_CUDA

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <memory>
#include <string>
#include <vector>

#include "engine/cuda/depthwise_convolution.h"
#include "engine/cuda/device_runtime.h"
#include "engine/cuda/library.h"
#include "engine/model/build.h"
#include "engine/passes/passes.h"
#include "kernels/launch.h"
#include "tests/case_for_each.h"
#include "tests/cuda/own_pairs.h"
#include "tests/random_weights.h"
#include "tests/skip.h"

using namespace damoyolo;
using namespace damoyolo::cuda;

TEST_CASE_FOR_EACH(const ModelSpec& spec, released_variants(),
                   "gpu: our own kernels give the bytes of two launches where they compute pairs of " + spec.variant +
                       " in one") {
  SKIP_WITHOUT_GPU("runs networks on it");
  constexpr int kBatch = 2, kHeight = 192, kWidth = 256;
  const std::unique_ptr<Runtime> runtime = open_runtime(0);
  const DeviceTraits device = open_libraries().device;
  const bool has_kernel = std::ranges::any_of(own_kernels(), [&](const OwnKernel& kernel) {
    return kernel.generation == ConvGeneration::Sm90 && runs_on(kernel.generation, device);
  });
  if (!has_kernel) return test::skip("this program has no kernels for pairs that run on this GPU");
  const BuiltModel model = build_model(spec, kBatch, kHeight, kWidth);
  const RandomWeights weights(model.sources);
  Graph graph = model.graph;
  optimize(graph);
  const OwnPairs pairs(graph, device, [&](const ConvProblem& problem, const ConvWeights& its) {
    if (problem.groups > 1) return make_depthwise_kernel(problem, its);
    const OwnConvolution own = own_unshared(problem, device, [](const kernels::ConvConfig&) { return true; });
    return make_own_kernel(problem, *own.kernel, own.config, its);
  });
  CHECK_FALSE(pairs.names().empty());

  std::array<Owned<CUstream_st>, kMaxStreams> owned;
  std::vector<StreamHandle> streams;
  for (auto& stream : owned) streams.push_back((stream = make_stream(*runtime)).get());
  NetworkOptions options;
  options.task = Task::Forward;
  options.plan.activations = DType::BF16;
  options.overlap = kernels::can_overlap();
  options.capture = options.fetch_ahead = true;
  const std::vector<std::uint8_t> pixels = golden_bytes("input", std::size_t{kBatch} * kHeight * kWidth * 3);
  const std::string wrong = describe_wrong_pairs(pairs, [&](const KernelChooser& choose) {
    Network network(*runtime, streams, graph, spec.head, weights.lookup(), choose, options);
    return output_of(network, *runtime, streams[0], pixels);
  });
  if (!wrong.empty()) FAIL_CHECK(wrong);
}

#endif
