#include "engine/passes/passes.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>

#include "engine/core/error.h"
#include "engine/model/build.h"
#include "tests/compare.h"
#include "tests/random_weights.h"
#include "tests/reference_head.h"
#include "tests/small_model.h"

using namespace damoyolo;

namespace {

constexpr int kBatch = 2, kHeight = 32, kWidth = 64;

Graph optimized(const ModelSpec& spec) {
  Graph graph = build_model(spec, kBatch, kHeight, kWidth).graph;
  optimize(graph);
  return graph;
}

std::vector<std::string> convolutions(const Graph& graph) {
  std::vector<std::string> names;
  for (const Node& node : graph.nodes)
    if (node.op == Op::Conv) names.push_back(node.name);
  return names;
}

// Lists of layers: all, those of a part, every other one.
std::vector<std::vector<std::string>> lists_to_keep(const Graph& graph) {
  std::vector<std::vector<std::string>> lists{{"*"}, {"backbone.*"}, {"neck.*"}, {}, {}};
  const std::vector<std::string> all = convolutions(graph);
  for (std::size_t i = 0; i < all.size(); ++i) lists[3 + i % 2].push_back(all[i]);
  return lists;
}

}  // namespace

TEST_CASE("each pass keeps what the network computes") {
  const std::vector<std::uint8_t> image = golden_bytes("input", std::size_t{kBatch} * kHeight * kWidth * 3);
  const auto check = [&](const BuiltModel& model) {
    const RandomWeights weights(model.sources);
    const std::vector<float> expected = reference_head(model.graph, weights, image);
    REQUIRE(std::all_of(expected.begin(), expected.end(), [](float value) { return std::isfinite(value); }));
    CHECK(*std::max_element(expected.begin(), expected.end()) > 0.1f);  // or everything would agree

    Graph graph = model.graph;
    for (const Pass& pass : optimization_passes()) {
      CAPTURE(pass.name);
      const std::size_t before = graph.nodes.size();
      pass.apply(graph);
      validate(graph);
      CHECK(graph.nodes.size() <= before);
      const std::vector<float> output = reference_head(graph, weights, image);
      REQUIRE(output.size() == expected.size());
      CHECK(relative_difference(expected, output) < 1e-4);
    }
  };
  for (const ModelSpec& spec : released_variants()) {
    CAPTURE(spec.variant);
    check(build_model(spec, kBatch, kHeight, kWidth));
  }
  check(small_model(kBatch, kHeight, kWidth));
}

TEST_CASE("a feature map is computed, though one node alone reads it and could take it in") {
  BuiltModel model = small_model(kBatch, kHeight, kWidth);
  const auto activation = std::ranges::find(model.graph.nodes, Op::Activate, &Node::op);
  REQUIRE(activation != model.graph.nodes.end());
  model.graph.backbone[0] = activation->inputs[0];
  const RandomWeights weights(model.sources);
  const std::vector<std::uint8_t> image = golden_bytes("input", std::size_t{kBatch} * kHeight * kWidth * 3);
  const auto feature = [&](const Graph& graph) {
    Reference reference(graph, weights.lookup());
    reference.run(image);
    return reference.read(graph.backbone[0]);
  };
  Graph graph = model.graph;
  optimize(graph);
  validate(graph);
  CHECK(std::ranges::count(graph.nodes, Op::Activate, &Node::op) == 1);
  CHECK(feature(graph) == feature(model.graph));
}

TEST_CASE("a concatenation that cannot be placed stays") {
  BuiltModel model;
  Builder build(model);
  Graph& graph = model.graph;
  graph.input = add_value(graph, "image", {1, 4, 4, 3}, Content::ImageU8);
  const ValueId x = build.cast("x", graph.input);
  const ValueId twice = build.concat("twice", {x, x});  // one producer cannot write two places
  for (HeadLevel& level : graph.head) level = {twice, twice, 8};
  graph.backbone = graph.neck = {x, x, x};
  validate(graph);
  place_concats(graph);
  validate(graph);
  REQUIRE(graph.nodes.size() == 2);
  CHECK(graph.nodes[1].op == Op::Concat);
}

TEST_CASE("layers kept in fp32 read fp32, all others what they read before, and both compute the same as before") {
  const std::vector<std::uint8_t> image = golden_bytes("input", std::size_t{kBatch} * kHeight * kWidth * 3);
  for (const ModelSpec& spec : released_variants()) {
    CAPTURE(spec.variant);
    const Graph plain = optimized(spec);
    const RandomWeights weights(build_model(spec, kBatch, kHeight, kWidth).sources);
    const std::vector<float> expected = reference_head(plain, weights, image);
    for (const std::vector<std::string>& names : lists_to_keep(plain)) {
      CAPTURE(names.front());
      std::vector<std::string> kept;
      for (const std::size_t i : find_convolutions(plain, names)) kept.push_back(plain.nodes[i].name);
      Graph graph = plain;
      keep_fp32(graph, names);
      validate(graph);
      CHECK(convolutions(graph) == convolutions(plain));
      for (const Node& node : graph.nodes)
        if (node.op == Op::Conv) {
          const bool in_fp32 = std::ranges::find(kept, node.name) != kept.end();
          CHECK((graph.buffer_of(node.inputs[0]).content == Content::Float32) == in_fp32);
        }
      for (std::size_t level = 0; level < 3; ++level)
        CHECK(graph.value(graph.neck[level]).shape == plain.value(plain.neck[level]).shape);
      CHECK(reference_head(graph, weights, image) == expected);
    }
  }
}

TEST_CASE("nothing is converted where all layers are kept in fp32, and little where neighbours are") {
  const auto conversions = [](Graph graph, const std::vector<std::string>& names) {
    keep_fp32(graph, names);
    return std::ranges::count(graph.nodes, Op::Convert, &Node::op);
  };
  const Graph graph = optimized(released_variant("T"));
  CHECK(conversions(graph, {"*"}) == 0);
  CHECK(conversions(graph, {}) == 0);
  // Three features are read by other parts of the neck, too, the head's inputs by one convolution each.
  CHECK(conversions(graph, {"head.*"}) == 2);
  CHECK(conversions(graph, {"backbone.*"}) == 3);
  // Its residual and its result; its input nobody else reads.
  CHECK(conversions(graph, {"neck.merge_3.0.conv2"}) == 2);
}

TEST_CASE("convolutions are found by name or beginning, and a name that means none is told from those like it") {
  const Graph graph = optimized(released_variant("T"));
  const auto found = [&](const std::vector<std::string>& names) { return find_convolutions(graph, names).size(); };
  CHECK(found({}) == 0);
  CHECK(found({"*"}) == convolutions(graph).size());
  CHECK(found({"head.*"}) == 3);
  CHECK(found({"head.cls.0+reg.0", "head.*"}) == 3);
  CHECK(found({"neck.merge_3.conv2+conv1"}) == 1);
  const auto message = [&](const std::string& name) {
    try {
      found({"head.*", name});
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  CHECK(message("head.cls.1") ==
        "no convolution of the graph is called \"head.cls.1\", the nearest names are head.cls.1+reg.1, "
        "head.cls.0+reg.0, head.cls.2+reg.2");
  CHECK(message("bakcbone.2*").find("the nearest names are backbone.2.0") != std::string::npos);
  CHECK(message("backbone.5.1.concat.pools").starts_with("no convolution of the graph is called"));
}
