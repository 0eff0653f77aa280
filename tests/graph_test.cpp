#include "engine/graph.h"

#include <doctest/doctest.h>

#include <algorithm>

#include "engine/core/error.h"
#include "engine/model/build.h"
#include "engine/passes/passes.h"

using namespace damoyolo;

namespace {

struct Size {
  const char* variant;
  int convolutions;
  double gflop;
};

// The spec's table of sizes at batch 1.
constexpr Size kSizes[] = {{"N", 91, 4.04}, {"Ns", 91, 1.50}, {"Nm", 91, 3.58}, {"Nl", 94, 5.91},
                           {"T", 77, 18.0}, {"S", 83, 37.6},  {"M", 111, 61.6}, {"L", 141, 97.1}};

std::ptrdiff_t count(const Graph& graph, Op op) {
  return std::count_if(graph.nodes.begin(), graph.nodes.end(), [&](const Node& node) { return node.op == op; });
}

double gflop(const Graph& graph) {
  double total = 0;
  for (const Node& node : graph.nodes) total += static_cast<double>(flops(graph, node));
  return total * 1e-9;
}

}  // namespace

TEST_CASE("every variant has the published convolutions and work") {
  for (const Size& size : kSizes) {
    CAPTURE(size.variant);
    const ModelSpec& spec = released_variant(size.variant);
    const BuiltModel model = build_model(spec, 1, spec.input_height, spec.input_width);
    CHECK(count(model.graph, Op::Conv) == size.convolutions);
    CHECK(gflop(model.graph) == doctest::Approx(size.gflop).epsilon(0.005));
    CHECK(static_cast<std::size_t>(size.convolutions) == model.sources.size());
  }
}

TEST_CASE("the passes leave one cast, one pooling node and convolutions") {
  for (const ModelSpec& spec : released_variants()) {
    CAPTURE(spec.variant);
    Graph graph = build_model(spec, 1, spec.input_height, spec.input_width).graph;
    const std::size_t built = graph.nodes.size();
    const double work = gflop(graph);
    optimize(graph);
    CHECK(graph.nodes.size() * 2 < built);
    CHECK(count(graph, Op::Cast) == 1);
    CHECK(count(graph, Op::SppPool) == 1);
    CHECK(static_cast<std::size_t>(count(graph, Op::Conv)) + 2 == graph.nodes.size());
    CHECK(gflop(graph) < work);
  }
}

TEST_CASE("the head's outputs and features keep their shapes through the passes") {
  for (const ModelSpec& spec : released_variants()) {
    CAPTURE(spec.variant);
    const Graph plain = build_model(spec, 2, 64, 96).graph;
    Graph graph = plain;
    optimize(graph);
    for (std::size_t level = 0; level < 3; ++level) {
      CHECK(graph.value(graph.head[level].cls).shape == plain.value(plain.head[level].cls).shape);
      CHECK(graph.value(graph.head[level].reg).shape == plain.value(plain.head[level].reg).shape);
      CHECK(graph.value(graph.head[level].reg).shape.h == 64 / graph.head[level].stride);
      CHECK(graph.value(graph.backbone[level]).shape.c == spec.neck.in[level]);
      CHECK(graph.value(graph.neck[level]).shape.c == spec.neck.out[level]);
    }
  }
}

TEST_CASE("sizes that are not multiples of 32 are refused") {
  const ModelSpec& spec = released_variant("Ns");
  CHECK_THROWS_AS(build_model(spec, 1, 100, 64), Error);
  CHECK_THROWS_AS(build_model(spec, 0, 64, 64), Error);
  CHECK_THROWS_AS(build_model(spec, 1, 64, -32), Error);
}

TEST_CASE("a broken graph does not validate") {
  const Graph graph = build_model(released_variant("T"), 1, 64, 64).graph;
  SUBCASE("a node that reads what comes later") {
    Graph broken = graph;
    std::swap(broken.nodes.front(), broken.nodes.back());
    CHECK_THROWS_AS(validate(broken), Error);
  }
  SUBCASE("a view outside its buffer") {
    Graph broken = graph;
    broken.values[3].channel_offset = 1;
    CHECK_THROWS_AS(validate(broken), Error);
  }
  SUBCASE("an addition of rounded and unrounded numbers") {
    Graph broken = graph;
    const auto add = std::ranges::find(broken.nodes, Op::Add, &Node::op);
    REQUIRE(add != broken.nodes.end());
    broken.buffers[static_cast<std::size_t>(broken.value(add->inputs[1]).buffer)].content = Content::Float32;
    CHECK_THROWS_AS(validate(broken), Error);
  }
  SUBCASE("a feature map that nothing writes") {
    Graph broken = graph;
    broken.neck[1] = add_value(broken, "nothing", {1, 4, 4, 8});
    CHECK_THROWS_WITH_AS(validate(broken), "feature map nothing of the graph is never written", Error);
  }
  SUBCASE("a convolution that takes no steps") {
    Graph broken = graph;
    std::ranges::find(broken.nodes, Op::Conv, &Node::op)->stride = 0;
    CHECK_THROWS_AS(validate(broken), Error);
  }
  SUBCASE("weights that do not fit") {
    Graph broken = graph;
    for (Node& node : broken.nodes)
      if (node.op == Op::Conv) node.weights[0].in_end += 1;
    CHECK_THROWS_AS(validate(broken), Error);
  }
}

TEST_CASE("a graph prints a line per node and an edge per operand") {
  Graph graph = build_model(released_variant("Ns"), 1, 64, 64).graph;
  optimize(graph);
  const std::string text = to_text(graph);
  CHECK(std::count(text.begin(), text.end(), '\n') == static_cast<std::ptrdiff_t>(graph.nodes.size()) + 1);
  const std::string dot = to_dot(graph);
  CHECK(dot.starts_with("digraph"));
  CHECK(dot.find("image -> n0") != std::string::npos);
}
