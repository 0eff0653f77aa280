// bench/layers/layers.json against the variants it was made from.
#include "bench/layers/layer_table.h"

#include <doctest/doctest.h>

#include <algorithm>

#include "engine/core/error.h"
#include "engine/cuda/conv_split.h"

using namespace damoyolo;
using namespace damoyolo::cuda;

TEST_CASE("the layer table holds the convolutions of the variants") {
  const std::vector<Layer> expected = layers_of_variants(), table = read_layers();
  // Otherwise "build/layer-bench --table > bench/layers/layers.json" makes it anew.
  REQUIRE(table.size() == expected.size());
  for (std::size_t i = 0; i < table.size(); ++i) {
    CAPTURE(describe(expected[i].problem));
    CHECK(table[i].problem == expected[i].problem);
    CHECK(table[i].count == expected[i].count);
  }
}

TEST_CASE("layers are what the network of a variant computes") {
  const std::vector<Layer> table = read_layers();
  int small = 0, pairs = 0;
  for (const Layer& layer : table) {
    const ConvProblem& problem = layer.problem;
    CHECK(problem.groups == 1);
    CHECK(problem.in_pixel_stride % 8 == 0);
    CHECK((problem.kernel == 1 || problem.kernel == 3));
    if (const auto count = layer.count.find("T"); count != layer.count.end())
      (problem.then.c == 0 ? small : pairs) += count->second;
    // Both of a pair are there by themselves, too.
    if (problem.then.c == 0) continue;
    for (const ConvProblem& alone : {first_of(problem), second_of(problem)})
      CHECK(std::ranges::count(table, alone, &Layer::problem) == 1);
  }
  CHECK(small == 71);  // as README.md has it
  CHECK(pairs == 10);
  CHECK(std::ranges::count(table, true, [](const Layer& layer) { return layer.problem.out_type == DType::F32; }) > 0);
}

TEST_CASE("a layer table that is damaged is refused") {
  CHECK(layers_from_json("[]", "table").empty());
  CHECK_THROWS_AS(layers_from_json("[{}]", "table"), Error);
  CHECK_THROWS_AS(layers_from_json("[", "table"), Error);
  CHECK_THROWS_AS(read_layers("no/such/file.json"), Error);
  const std::string text = layers_to_json({read_layers().front()}), pair = layers_to_json({read_layers().back()});
  CHECK(layers_to_json(layers_from_json(text, "table")) == text);
  CHECK(layers_to_json(layers_from_json(pair, "table")) == pair);
  const auto with = [&](const std::string& from, const std::string& to, std::string changed) {
    changed.replace(changed.find(from), from.size(), to);
    return changed;
  };
  CHECK_THROWS_WITH_AS(layers_from_json(with("\"stride\":1", "\"stride\":0", text), "table"),
                       "table: stride is 0, expected at least 1", Error);
  CHECK_THROWS_WITH_AS(layers_from_json(with("\"residual\":\"none\"", "\"residual\":\"all\"", text), "table"),
                       "table: there is no residual \"all\", expected none, same or half", Error);
  CHECK_THROWS_WITH_AS(layers_from_json(with("\"then\":256", "\"then\":0", pair), "table"),
                       "table: then is 0, expected at least 1", Error);
}
