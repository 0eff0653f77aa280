#include <doctest/doctest.h>

#include <cmath>
#include <string_view>

#include "engine/core/error.h"
#include "engine/cpu/network.h"
#include "engine/cpu/reference.h"
#include "engine/device.h"
#include "engine/model/build.h"
#include "engine/passes/passes.h"
#include "tests/compare.h"
#include "tests/random_weights.h"
#include "tests/reference_head.h"
#include "tests/skip.h"
#include "tests/small_model.h"

using namespace damoyolo;

namespace {

constexpr int kBatch = 2, kHeight = 64, kWidth = 32;

struct Case {
  explicit Case(const ModelSpec& spec, const std::vector<std::string>& kept_in_fp32 = {})
      : model(build_model(spec, kBatch, kHeight, kWidth)),
        weights(model.sources),
        graph(model.graph),
        image(golden_bytes("input", std::size_t{kBatch} * kHeight * kWidth * 3)) {
    optimize(graph);
    keep_fp32(graph, kept_in_fp32);
  }
  cpu::Network network(const cpu::NetworkOptions& options) const {
    cpu::Network result(graph, weights.lookup(), options);
    result.run(image);
    return result;
  }

  std::vector<float> expected() const { return reference_head(graph, weights, image); }

  BuiltModel model;
  RandomWeights weights;
  Graph graph;
  std::vector<std::uint8_t> image;
};

std::vector<float> value_of(const cpu::Network& network, ValueId id) {
  return network.read(network.plan().values[static_cast<std::size_t>(id)]);
}

std::vector<float> head_of(const cpu::Network& network) {
  std::vector<float> all;
  for (const cpu::HeadSlices& level : network.plan().head)
    for (const cpu::Slice& slice : {level.cls, level.reg}) {
      const std::vector<float> tensor = network.read(slice.tensor);
      const auto width = static_cast<std::size_t>(network.plan().tensor(slice.tensor).shape.c);
      for (std::size_t pixel = 0; pixel < tensor.size(); pixel += width)
        for (int c = 0; c < slice.channels; ++c)
          all.push_back(tensor[pixel + static_cast<std::size_t>(slice.channel + c)]);
    }
  return all;
}

// In fp32 within `bound`, and in bf16 where the processor has it.
void check_beside_reference(const Graph& graph, const RandomWeights& weights, const std::vector<std::uint8_t>& image,
                            double bound) {
  const std::vector<float> expected = reference_head(graph, weights, image);
  for (const DType type : {DType::F32, DType::BF16}) {
    if (type == DType::BF16 && !describe_cpu().bf16) continue;
    cpu::NetworkOptions options;
    options.plan.activations = type;
    options.poison_freed = true;
    cpu::Network network(graph, weights.lookup(), options);
    network.run(image);
    CHECK(relative_difference(expected, head_of(network)) < (type == DType::F32 ? bound : 0.01));
  }
}

}  // namespace

TEST_CASE("the CPU plan computes what the reference computes, also when freed memory is poisoned") {
  for (const ModelSpec& spec : released_variants()) {
    CAPTURE(spec.variant);
    const Case test(spec);
    const std::vector<float> expected = test.expected();
    cpu::NetworkOptions options;
    options.poison_freed = true;
    CHECK(relative_difference(expected, head_of(test.network(options))) < 1e-5);
    if (!describe_cpu().bf16) continue;
    options.plan.activations = DType::BF16;
    CHECK(relative_difference(expected, head_of(test.network(options))) < 0.05);
  }
}

TEST_CASE("every value can be read after the run, when the CPU plan keeps them") {
  for (const std::string_view variant : {"Ns", "T"}) {
    CAPTURE(variant);
    const Case test(released_variant(variant));
    Reference reference(test.graph, test.weights.lookup());
    reference.run(test.image);
    cpu::NetworkOptions options;
    options.plan.keep_values = true;
    const cpu::Network network = test.network(options);
    CHECK(head_of(network) == head_of(test.network({})));
    for (ValueId id = 0; id < static_cast<ValueId>(test.graph.values.size()); ++id) {
      CAPTURE(test.graph.value(id).name);
      if (id != test.graph.input) CHECK(relative_difference(reference.read(id), value_of(network, id)) < 1e-5);
    }
  }
}

TEST_CASE("layers kept in fp32 compute what they compute in the fp32 network") {
  if (!describe_cpu().bf16) return test::skip("the processor has no bf16 instructions");
  cpu::NetworkOptions bf16, fp32;
  bf16.plan.activations = DType::BF16;
  bf16.plan.keep_values = fp32.plan.keep_values = true;
  for (const std::string_view variant : {"Ns", "T"}) {
    CAPTURE(variant);
    const ModelSpec& spec = released_variant(variant);
    const Case plain(spec);
    const cpu::Network exact = plain.network(fp32);
    CHECK(head_of(Case(spec, {"*"}).network({bf16.plan})) == head_of(exact));

    // Nothing is rounded before the backbone.
    const Case test(spec, {"backbone.*"});
    const cpu::Network network = test.network(bf16);
    for (const Node& node : test.graph.nodes)
      for (const Node& same : plain.graph.nodes)
        if (node.op == Op::Conv && node.name == same.name && node.name.starts_with("backbone.")) {
          CAPTURE(node.name);
          CHECK(value_of(network, node.output) == value_of(exact, same.output));
        }
  }
}

TEST_CASE("some layers in fp32 bring the result nearer, also when freed memory is poisoned") {
  if (!describe_cpu().bf16) return test::skip("the processor has no bf16 instructions");
  cpu::NetworkOptions options;
  options.plan.activations = DType::BF16;
  options.poison_freed = true;
  for (const std::string_view variant : {"Ns", "T"}) {
    CAPTURE(variant);
    const ModelSpec& spec = released_variant(variant);
    const Case plain(spec);
    const std::vector<float> expected = plain.expected();
    const double all_rounded = relative_difference(expected, head_of(plain.network(options)));
    for (const bool odd : {false, true}) {
      std::vector<std::string> names;
      for (std::size_t i = odd; i < plain.graph.nodes.size(); i += 2)
        if (plain.graph.nodes[i].op == Op::Conv) names.push_back(plain.graph.nodes[i].name);
      const double some_rounded = relative_difference(expected, head_of(Case(spec, names).network(options)));
      CHECK(some_rounded < 0.9 * all_rounded);
      CHECK(some_rounded > 1e-5);
    }
  }
}

TEST_CASE("a residual of half the size is added after the activation, too") {
  Graph graph;
  graph.input = add_value(graph, "image", {2, 8, 4, 3}, Content::ImageU8);
  const ValueId x = add_value(graph, "x", {2, 8, 4, 3});
  const ValueId low = add_value(graph, "low", {2, 4, 2, 16});
  const ValueId y = add_value(graph, "y", {2, 8, 4, 16}, Content::Float32);
  const auto add_node = [&](Op op, const char* name, ValueId in, ValueId out) -> Node& {
    Node& node = graph.nodes.emplace_back();
    node.op = op;
    node.name = name;
    node.inputs = {in};
    node.output = out;
    if (op == Op::Conv) node.weights = {{name, 16, 0, 3, true}};
    return node;
  };
  add_node(Op::Cast, "cast", graph.input, x);
  add_node(Op::Conv, "low", x, low).stride = 2;
  Node& sum = add_node(Op::Conv, "y", x, y);
  sum.act = Activation::Silu;
  sum.residual = low;
  for (HeadLevel& level : graph.head) level = {y, y, 8};
  graph.backbone = graph.neck = {y, y, y};

  const auto source = [](const char* name) {
    ConvSource result;
    result.node = name;
    result.out = 16;
    result.in_per_group = 3;
    result.kernel = 1;
    return result;
  };
  const RandomWeights weights({source("low"), source("y")});
  const std::vector<std::uint8_t> image = golden_bytes("input", 2 * 8 * 4 * 3);
  for (const bool residual_first : {true, false}) {
    CAPTURE(residual_first);
    graph.nodes.back().residual_first = residual_first;
    validate(graph);
    check_beside_reference(graph, weights, image, 1e-6);
  }
}

TEST_CASE("the CPU plan computes what no released model leaves to it") {
  const BuiltModel model = small_model(2, 4, 6);
  const RandomWeights weights(model.sources);
  const std::vector<std::uint8_t> image = golden_bytes("input", 2 * 4 * 6 * 3);
  Graph graph = model.graph;
  optimize(graph);
  check_beside_reference(graph, weights, image, 1e-5);
}

TEST_CASE("the same input gives the same bytes, whatever ran before") {
  const Case test(released_variant("T"));
  cpu::Network network = test.network({});
  const std::vector<float> first = head_of(network);
  const std::vector<std::uint8_t> other = golden_bytes("other", test.image.size());
  network.run(other);
  CHECK(head_of(network) != first);
  network.run(test.image);
  CHECK(head_of(network) == first);
}

TEST_CASE("images of a batch do not influence each other") {
  const ModelSpec& spec = released_variant("Ns");
  const Case test(spec);
  Graph graph = build_model(spec, 1, kHeight, kWidth).graph;
  optimize(graph);
  cpu::Network single(graph, test.weights.lookup(), {});
  const cpu::Network batch = test.network({});
  const HeadMaps batched = batch.head(spec.head.classes, spec.head.reg_max);
  for (int image = 0; image < kBatch; ++image) {
    single.run(std::span(test.image)
                   .subspan(static_cast<std::size_t>(image) * test.image.size() / kBatch, test.image.size() / kBatch));
    const HeadMaps alone = single.head(spec.head.classes, spec.head.reg_max);
    for (std::size_t i = 0; i < 3; ++i) {
      const std::int64_t pixels = std::int64_t{alone.levels[i].height} * alone.levels[i].width;
      for (std::int64_t p = 0; p < pixels; ++p)
        for (int c = 0; c < spec.head.classes; ++c)
          CHECK(alone.levels[i].cls[p * alone.levels[i].cls_pixel_stride + c] ==
                doctest::Approx(batched.levels[i].cls[(image * pixels + p) * batched.levels[i].cls_pixel_stride + c])
                    .epsilon(1e-4));
    }
  }
}

TEST_CASE("pixels of the wrong size are refused") {
  const Case test(released_variant("Ns"));
  cpu::Network network = test.network({});
  CHECK_THROWS_AS(network.run(std::span(test.image).first(100)), Error);
}

TEST_CASE("a graph that was not optimized has no CPU plan") {
  CHECK_THROWS_AS(cpu::lower(build_model(released_variant("T"), 1, 64, 64).graph, {}), Error);
}
