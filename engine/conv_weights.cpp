#include "engine/conv_weights.h"

#include <cstddef>

#include "engine/core/error.h"
#include "engine/core/rounding.h"

namespace damoyolo {

ConvWeights gather_weights(const Node& node, const TensorLookup& lookup) {
  ConvWeights result;
  const std::size_t taps = static_cast<std::size_t>(node.kernel) * static_cast<std::size_t>(node.kernel);
  for (const WeightSlice& slice : node.weights) {
    const TensorView& tensor = lookup(slice.tensor + ".weight");
    const auto& shape = tensor.shape;
    if (shape.size() != 4 || shape[0] != slice.out || shape[1] < slice.in_end || shape[2] != node.kernel ||
        shape[3] != node.kernel)
      throw Error("tensor {}.weight does not have the shape [{}, >= {}, {}, {}] that {} needs", slice.tensor,
                  slice.out, slice.in_end, node.kernel, node.kernel, node.name);
    const std::vector<float> all = to_floats(tensor);
    const std::size_t row = static_cast<std::size_t>(shape[1]) * taps;
    for (std::size_t out = 0; out < static_cast<std::size_t>(slice.out); ++out) {
      const auto begin = all.begin() + static_cast<std::ptrdiff_t>(out * row);
      result.weight.insert(result.weight.end(), begin + static_cast<std::ptrdiff_t>(slice.in_begin * taps),
                           begin + static_cast<std::ptrdiff_t>(slice.in_end * taps));
    }
    if (!slice.bias) {
      result.bias.insert(result.bias.end(), static_cast<std::size_t>(slice.out), 0.f);
      continue;
    }
    const TensorView& bias = lookup(slice.tensor + ".bias");
    if (bias.shape.size() != 1 || bias.shape[0] != slice.out)
      throw Error("tensor {}.bias does not have the shape [{}] that {} needs", slice.tensor, slice.out, node.name);
    const std::vector<float> values = to_floats(bias);
    result.bias.insert(result.bias.end(), values.begin(), values.end());
  }
  return result;
}

ConvWeights gather_weights(const Graph& graph, const Node& node, const TensorLookup& lookup, DType type) {
  ConvWeights weights = gather_weights(node, lookup);
  if (type == DType::BF16 && reads_pixels(graph, node))
    round_keeping_sums(weights.weight, weights.weight.size() / weights.bias.size());
  return weights;
}

}  // namespace damoyolo
