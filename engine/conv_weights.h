// The weights of a graph's convolutions, as the passes have merged and split them.
#pragma once

#include <functional>
#include <string_view>
#include <vector>

#include "engine/graph.h"
#include "weights/safetensors.h"

namespace damoyolo {

// Finds a tensor of the weights file by name; throws Error when there is none.
using TensorLookup = std::function<const TensorView&(std::string_view)>;

struct ConvWeights {
  std::vector<float> weight;  // [out, in/groups, k, k]
  std::vector<float> bias;    // [out]; zero where a slice has none
  // Of a convolution of kernel 1 that one launch computes behind this one: [its out, out], [its out].
  std::vector<float> then_weight = {}, then_bias = {};
};

// Reads the slices of a convolution node and stacks them along the output channels. Throws Error naming the tensor
// whose shape is not what the node needs.
ConvWeights gather_weights(const Node& node, const TensorLookup& lookup);

// The same for a network that stores them in `type`: in bf16, those of a node that reads pixels come rounded, see
// round_keeping_sums().
ConvWeights gather_weights(const Graph& graph, const Node& node, const TensorLookup& lookup, DType type);

}  // namespace damoyolo
