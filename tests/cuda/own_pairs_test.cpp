// Pairs by our own kernels in a whole network, through the SIMT shim.
#include "tests/cuda/own_pairs.h"

#include <doctest/doctest.h>

#include <string_view>

#include "engine/model/build.h"
#include "engine/passes/passes.h"
#include "tests/conv_problems.h"
#include "tests/cuda/host_convolution.h"
#include "tests/cuda/host_runtime.h"
#include "tests/random_weights.h"

using namespace damoyolo;
using namespace damoyolo::cuda;

#ifndef DAMOYOLO_WITHOUT_SM90A
TEST_CASE("a network gives the bytes of two launches where our own kernels compute pairs in one") {
  constexpr int kSide = 32;
  const std::vector<std::uint8_t> pixels = golden_bytes("input", std::size_t{kSide} * kSide * 3);
  for (const std::string_view variant : {"Ns", "T", "S"}) {
    CAPTURE(variant);
    const ModelSpec& spec = released_variant(variant);
    const BuiltModel model = build_model(spec, 1, kSide, kSide);
    const RandomWeights weights(model.sources);
    Graph graph = model.graph;
    optimize(graph);
    const OwnPairs pairs(graph, h100(), [](const ConvProblem& problem, const ConvWeights& its) {
      return host_candidates(problem).front().make(its);
    });
    CHECK_FALSE(pairs.names().empty());

    HostRuntime runtime;
    std::vector<Owned<CUstream_st>> owned;
    std::vector<StreamHandle> streams;
    for (int i = 0; i < kMaxStreams; ++i) streams.push_back(owned.emplace_back(make_stream(runtime)).get());
    NetworkOptions options;
    options.task = Task::Forward;
    options.plan.activations = DType::BF16;
    options.capture = options.fetch_ahead = true;
    std::vector<std::size_t> steps;
    CHECK(describe_wrong_pairs(pairs, [&](const KernelChooser& choose) {
            Network network(runtime, streams, graph, spec.head, weights.lookup(), choose, options);
            steps.push_back(network.plan().steps.size());
            return output_of(network, runtime, streams[0], pixels);
          }) == "");
    REQUIRE(steps.size() == 2);
    CHECK(steps[1] + pairs.names().size() == steps[0]);
  }
}

TEST_CASE("a pair that gives other bytes than its two launches is named, with how many and by how much") {
  const ModelSpec& spec = released_variant("T");
  Graph graph = build_model(spec, 1, 32, 32).graph;
  optimize(graph);
  const OwnPairs pairs(graph, h100(), {});
  REQUIRE(pairs.names().size() > 2);
  std::size_t runs = 0;
  const std::string wrong = describe_wrong_pairs(pairs, [&](const KernelChooser&) {
    std::vector<float> output(8, 1.f);
    if (runs == 1) output[5] = output[6] = 4;  // all in one launch
    if (runs == 3) output[5] = 3;              // of these alone the second
    ++runs;
    const auto bytes = std::as_bytes(std::span(output));
    return std::vector<std::byte>(bytes.begin(), bytes.end());
  });
  CAPTURE(wrong);
  CHECK(wrong.find("2 of 8 wrong") != std::string::npos);
  CHECK(wrong.find("at most by 3 ") != std::string::npos);
  CHECK(wrong.find(pairs.names()[1] + ": 1 of 8 wrong") != std::string::npos);
  CHECK(wrong.find("at most by 2 ") != std::string::npos);
  CHECK(wrong.find(pairs.names()[0]) == std::string::npos);
}
#endif
