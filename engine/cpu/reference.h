// The plain executor that every backend is judged by: fp32, one buffer per graph buffer, a loop per operation.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "engine/conv_weights.h"
#include "engine/graph.h"

namespace damoyolo {

// Runs any valid graph, plain or optimized, views and all. One object serves one thread at a time.
class Reference {
 public:
  // Reads the weights once; the lookup is not kept.
  Reference(Graph graph, const TensorLookup& lookup);

  // `images`: [n, h, w, 3] RGB, as the graph's input says; throws Error when the length differs.
  void run(std::span<const std::uint8_t> images);

  // A value after run(), as [n, h, w, c] without gaps.
  std::vector<float> read(ValueId id) const;

  const Graph& graph() const { return graph_; }

 private:
  Graph graph_;
  std::vector<ConvWeights> weights_;         // by node; [k, k, in/groups, out] so that the inner loop is over outputs
  std::vector<std::vector<float>> buffers_;  // [n, h, w, c]
};

}  // namespace damoyolo
