#include "engine/passes/passes.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>

#include "engine/cpu/reference.h"
#include "engine/model/build.h"
#include "tests/compare.h"
#include "tests/random_weights.h"

using namespace damoyolo;

namespace {

constexpr int kBatch = 2, kHeight = 32, kWidth = 64;

std::vector<float> head_of(const Graph& graph, const RandomWeights& weights, const std::vector<std::uint8_t>& image) {
  Reference reference(graph, weights.lookup());
  reference.run(image);
  std::vector<float> all;
  for (const HeadLevel& level : graph.head)
    for (const ValueId id : {level.cls, level.reg}) {
      const std::vector<float> values = reference.read(id);
      all.insert(all.end(), values.begin(), values.end());
    }
  return all;
}

}  // namespace

TEST_CASE("each pass keeps what the network computes") {
  const std::vector<std::uint8_t> image = golden_bytes("input", std::size_t{kBatch} * kHeight * kWidth * 3);
  for (const ModelSpec& spec : released_variants()) {
    CAPTURE(spec.variant);
    const BuiltModel model = build_model(spec, kBatch, kHeight, kWidth);
    const RandomWeights weights(model.sources);
    const std::vector<float> expected = head_of(model.graph, weights, image);
    REQUIRE(std::all_of(expected.begin(), expected.end(), [](float value) { return std::isfinite(value); }));
    CHECK(*std::max_element(expected.begin(), expected.end()) > 0.1f);  // or everything would agree

    Graph graph = model.graph;
    for (const Pass& pass : optimization_passes()) {
      CAPTURE(pass.name);
      const std::size_t before = graph.nodes.size();
      pass.apply(graph);
      validate(graph);
      CHECK(graph.nodes.size() <= before);
      const std::vector<float> output = head_of(graph, weights, image);
      REQUIRE(output.size() == expected.size());
      CHECK(relative_difference(expected, output) < 1e-4);
    }
  }
}

TEST_CASE("a concatenation that cannot be placed stays") {
  Graph graph;
  graph.input = add_value(graph, "image", {1, 4, 4, 3}, Content::ImageU8);
  const ValueId x = add_value(graph, "x", {1, 4, 4, 3});
  const ValueId twice = add_value(graph, "twice", {1, 4, 4, 6});
  graph.nodes.resize(2);
  graph.nodes[0].op = Op::Cast;
  graph.nodes[0].name = "x";
  graph.nodes[0].inputs = {graph.input};
  graph.nodes[0].output = x;
  graph.nodes[1].op = Op::Concat;
  graph.nodes[1].name = "twice";
  graph.nodes[1].inputs = {x, x};  // one producer cannot write two places
  graph.nodes[1].output = twice;
  for (HeadLevel& level : graph.head) level = {twice, twice, 8};
  graph.backbone = graph.neck = {x, x, x};
  validate(graph);
  place_concats(graph);
  validate(graph);
  REQUIRE(graph.nodes.size() == 2);
  CHECK(graph.nodes[1].op == Op::Concat);
}
