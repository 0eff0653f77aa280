#include "engine/audit.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>

#include "engine/detector.h"
#include "engine/model/build.h"
#include "engine/passes/passes.h"
#include "tests/golden_generator.h"
#include "tests/skip.h"

using namespace damoyolo;

namespace {

constexpr int kSide = 64;

// The demo model on small noise, in bf16.
struct Case {
  explicit Case(std::vector<std::string> kept = {})
      : detector("weights/demo/digits-ns.safetensors", {.device = "cpu", .precision = Precision::Bf16}),
        graph(build_model(detector.model(), 1, kSide, kSide).graph) {
    optimize(graph);
    const std::size_t bytes = std::size_t{kSide} * kSide * 3;
    audit.emplace(
        graph, std::move(kept), [this](Graph of) { return detector.probe(std::move(of)); },
        std::vector<NetworkImage>{golden_bytes("first", bytes), golden_bytes("second", bytes)});
  }

  Detector detector;
  Graph graph;
  std::optional<Audit> audit;
};

std::vector<LayerError> layers_with_effects(std::size_t count) {
  std::vector<LayerError> layers;
  for (std::size_t i = 0; i < count; ++i) {
    LayerError& layer = layers.emplace_back();
    layer.name = std::to_string(i);
    layer.effect = static_cast<double>(5 * i % count) + 1;
  }
  return layers;
}

}  // namespace

TEST_CASE("audit: errors of layers, and what they do to the outputs, are those of rounding") {
  if (!describe_cpu().bf16) return test::skip("the processor has no bf16 instructions");
  const Case test;
  std::vector<LayerError> layers = test.audit->compare_layers();
  REQUIRE(layers.size() == static_cast<std::size_t>(std::ranges::count(test.graph.nodes, Op::Conv, &Node::op)));
  for (const LayerError& layer : layers) {
    CAPTURE(layer.name);
    CHECK(layer.flops > 0);
    CHECK_FALSE(layer.kept);
    CHECK(layer.local > 1e-4);
    CHECK(layer.local < 1e-2);
    CHECK(layer.accumulated > 1e-4);
    CHECK(layer.accumulated < 5e-2);
  }
  CHECK(layers.front().accumulated == layers.front().local);  // the pixels are exact

  test.audit->measure_effects(layers);
  double squares = 0;
  for (const LayerError& layer : layers) squares += layer.effect * layer.effect;
  // Roundings are independent of each other, so that their effects add up by their squares.
  const double all = test.audit->head_error({}).all();
  CHECK(std::sqrt(squares) == doctest::Approx(all).epsilon(0.25));

  const auto enough = [&](const std::vector<std::string>& keep) {
    return test.audit->head_error(keep).all() < 0.6 * all;
  };
  std::vector<std::string> keep = shortest_list(layers, enough);
  CHECK(keep.size() > 1);
  CHECK(keep.size() < layers.size() / 2);
  CHECK(enough(keep));
  keep.pop_back();
  CHECK_FALSE(enough(keep));
}

TEST_CASE("audit: all layers in fp32 leave no error, and layers that are kept anyway are not proposed") {
  if (!describe_cpu().bf16) return test::skip("the processor has no bf16 instructions");
  const Case test({"backbone.*"});
  CHECK(test.audit->head_error({"*"}).all() == 0);
  const std::vector<LayerError> layers = test.audit->compare_layers();
  for (const LayerError& layer : layers) {
    CAPTURE(layer.name);
    CHECK(layer.kept == layer.name.starts_with("backbone."));
    CHECK((layer.local == 0) == layer.kept);
    if (layer.kept) CHECK(layer.accumulated == 0);
  }
  const std::vector<std::string> all = shortest_list(layers, [](const auto&) { return false; });
  CHECK(all.size() == static_cast<std::size_t>(std::ranges::count(layers, false, &LayerError::kept)));
}

TEST_CASE("audit: the list is as short as it can be, with few tries") {
  for (const std::size_t count : {1, 2, 7, 73})
    for (std::size_t needed = 1; needed <= count; ++needed) {
      std::size_t tries = 0;
      const std::vector<std::string> keep = shortest_list(layers_with_effects(count), [&](const auto& names) {
        ++tries;
        return names.size() >= needed;
      });
      CHECK(keep.size() == needed);
      CHECK(static_cast<double>(tries) <= 2 * std::log2(static_cast<double>(count)) + 2);
    }
  CHECK(shortest_list(layers_with_effects(7), [](const auto&) { return true; }) == std::vector<std::string>{"4"});
}

TEST_CASE("audit: a tenth is 20 dB") {
  CHECK(signal_to_noise(0.1) == doctest::Approx(20));
  CHECK(signal_to_noise(0) == std::numeric_limits<double>::infinity());
  CHECK(HeadError{3, 1}.all() == doctest::Approx(std::sqrt(5.0)));
}
