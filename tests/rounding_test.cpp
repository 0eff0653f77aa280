#include "engine/core/rounding.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "engine/core/dtype.h"
#include "engine/core/error.h"
#include "engine/passes/passes.h"
#include "tests/random_weights.h"

namespace damoyolo {
namespace {

float nearest(float value) { return float_from_bf16(bf16_from_float(value)); }

std::vector<float> random_weights(std::size_t count) {
  std::mt19937 generator(7);
  std::normal_distribution<float> normal(0.01f, 0.05f);
  std::vector<float> values(count);
  for (float& value : values) value = normal(generator);
  return values;
}

TEST_CASE("rounding keeps the sum of every row, each value beside what it was") {
  constexpr std::size_t kRows = 16, kRow = 108;
  const std::vector<float> exact = random_weights(kRows * kRow);
  std::vector<float> rounded = exact;
  round_keeping_sums(rounded, kRow);
  double most_lost = 0;
  for (std::size_t row = 0; row < kRows; ++row) {
    double before = 0, after = 0, to_nearest = 0;
    std::vector<double> magnitudes;
    for (std::size_t i = row * kRow; i < (row + 1) * kRow; ++i) {
      before += exact[i];
      after += rounded[i];
      to_nearest += nearest(exact[i]);
      magnitudes.push_back(std::abs(exact[i]));
    }
    std::ranges::sort(magnitudes);
    for (std::size_t i = row * kRow; i < (row + 1) * kRow; ++i) {
      CHECK(nearest(rounded[i]) == rounded[i]);
      const auto larger = std::ranges::upper_bound(magnitudes, std::abs(double{exact[i]}));
      const double next = larger == magnitudes.end() ? magnitudes.back() : *larger;
      CHECK(std::abs(double{rounded[i]} - exact[i]) <= next * 0x1p-7);
    }
    CHECK(std::abs(after - before) <= magnitudes[1] * 0x1p-8);
    most_lost = std::max(most_lost, std::abs(to_nearest - before));
  }
  CHECK(most_lost > 1e-4);  // what there was to keep
}

TEST_CASE("rounding leaves bf16 values alone, and others where a row is not finite") {
  std::vector<float> values = {1.5f, -0.25f, 3.0f, 0.0f};
  const std::vector<float> before = values;
  round_keeping_sums(values, 2);
  CHECK(values == before);

  std::vector<float> infinite = {1.001f, std::numeric_limits<float>::infinity(), 0.1f};
  round_keeping_sums(infinite, 3);
  CHECK(infinite[0] == nearest(1.001f));
  CHECK(std::isinf(infinite[1]));
  CHECK(infinite[2] == nearest(0.1f));

  CHECK_THROWS_WITH_AS(round_keeping_sums(values, 3), "4 weights are no rows of 3, expected a multiple", Error);
}

TEST_CASE("networks in bf16 round the weights that read pixels so, and no others") {
  const BuiltModel built = build_model(released_variant("Ns"), 1, 64, 64);
  const RandomWeights random(built.sources);
  Graph graph = built.graph;
  optimize(graph);
  int reading_pixels = 0;
  for (const Node& node : graph.nodes) {
    if (node.op != Op::Conv) continue;
    std::vector<float> want = gather_weights(node, random.lookup()).weight;
    CHECK(gather_weights(graph, node, random.lookup(), DType::F32).weight == want);
    if (reads_pixels(graph, node)) {
      round_keeping_sums(want, want.size() / static_cast<std::size_t>(graph.value(node.output).shape.c));
      ++reading_pixels;
    }
    CHECK(gather_weights(graph, node, random.lookup(), DType::BF16).weight == want);
  }
  CHECK(reading_pixels == 1);
}

}  // namespace
}  // namespace damoyolo
