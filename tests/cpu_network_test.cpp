#include <doctest/doctest.h>

#include <cmath>

#include "engine/core/error.h"
#include "engine/cpu/network.h"
#include "engine/cpu/reference.h"
#include "engine/device.h"
#include "engine/model/build.h"
#include "engine/passes/passes.h"
#include "tests/compare.h"
#include "tests/random_weights.h"

using namespace damoyolo;

namespace {

constexpr int kBatch = 2, kHeight = 64, kWidth = 32;

struct Case {
  explicit Case(const ModelSpec& spec)
      : model(build_model(spec, kBatch, kHeight, kWidth)),
        weights(model.sources),
        graph(model.graph),
        image(golden_bytes("input", std::size_t{kBatch} * kHeight * kWidth * 3)) {
    optimize(graph);
  }
  cpu::Network network(const cpu::NetworkOptions& options) const {
    cpu::Network result(graph, weights.lookup(), options);
    result.run(image);
    return result;
  }

  BuiltModel model;
  RandomWeights weights;
  Graph graph;
  std::vector<std::uint8_t> image;
};

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

}  // namespace

TEST_CASE("the CPU plan computes what the reference computes, also when freed memory is poisoned") {
  for (const ModelSpec& spec : released_variants()) {
    CAPTURE(spec.variant);
    const Case test(spec);
    Reference reference(test.graph, test.weights.lookup());
    reference.run(test.image);
    std::vector<float> expected;
    for (const HeadLevel& level : test.graph.head)
      for (const ValueId id : {level.cls, level.reg}) {
        const std::vector<float> values = reference.read(id);
        expected.insert(expected.end(), values.begin(), values.end());
      }

    cpu::NetworkOptions options;
    options.poison_freed = true;
    options.plan.keep_features = true;
    const cpu::Network network = test.network(options);
    CHECK(relative_difference(expected, head_of(network)) < 1e-5);
    for (std::size_t level = 0; level < 3; ++level) {
      CHECK(relative_difference(reference.read(test.graph.backbone[level]),
                                network.read(network.plan().backbone[level])) < 1e-5);
      CHECK(relative_difference(reference.read(test.graph.neck[level]), network.read(network.plan().neck[level])) <
            1e-5);
    }
    if (!describe_cpu().bf16) continue;
    options.plan.activations = DType::BF16;
    CHECK(relative_difference(expected, head_of(test.network(options))) < 0.05);
  }
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
