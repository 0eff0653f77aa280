// What a graph computes, by the plain reference.
#pragma once

#include <cstdint>
#include <vector>

#include "engine/cpu/reference.h"
#include "engine/graph.h"
#include "tests/random_weights.h"

namespace damoyolo {

// Scores and bins of all levels, one after another.
inline std::vector<float> reference_head(const Graph& graph, const RandomWeights& weights,
                                         const std::vector<std::uint8_t>& images) {
  Reference reference(graph, weights.lookup());
  reference.run(images);
  std::vector<float> all;
  for (const HeadLevel& level : graph.head)
    for (const ValueId id : {level.cls, level.reg}) {
      const std::vector<float> values = reference.read(id);
      all.insert(all.end(), values.begin(), values.end());
    }
  return all;
}

}  // namespace damoyolo
