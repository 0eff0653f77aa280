// How far each convolution of a network that has run is from fp32 arithmetic on the very inputs it had.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "engine/conv_weights.h"
#include "engine/graph.h"
#include "tests/compare.h"

namespace damoyolo {

// A value of the graph after the run, as [n, h, w, c].
using ReadValue = std::function<std::vector<float>(ValueId)>;

// What engine/graph.h says a convolution is, in fp32.
inline std::vector<float> exact_convolution(const Graph& graph, const Node& node, const ConvWeights& weights,
                                            const ReadValue& read) {
  const Shape in = graph.value(node.inputs[0]).shape, out = graph.value(node.output).shape;
  const std::vector<float> x = read(node.inputs[0]);
  const std::vector<float> r = node.residual == kNone ? std::vector<float>() : read(node.residual);
  const bool depthwise = node.groups > 1;
  const int taps = node.kernel * node.kernel, per_output = depthwise ? 1 : in.c;
  std::vector<float> packed(weights.weight.size());  // [tap, in/groups, out]
  for (int c = 0; c < out.c; ++c)
    for (int k = 0; k < per_output; ++k)
      for (int tap = 0; tap < taps; ++tap)
        packed[static_cast<std::size_t>((tap * per_output + k) * out.c + c)] =
            weights.weight[static_cast<std::size_t>((c * per_output + k) * taps + tap)];

  std::vector<float> y(static_cast<std::size_t>(out.elements()));
  for (std::int64_t pixel = 0; pixel < out.pixels(); ++pixel) {
    const int column = static_cast<int>(pixel % out.w), row = static_cast<int>(pixel / out.w % out.h);
    const std::int64_t image = pixel / out.w / out.h;
    float* const sums = &y[static_cast<std::size_t>(pixel * out.c)];
    for (int c = 0; c < out.c; ++c) sums[c] = weights.bias[static_cast<std::size_t>(c)];
    for (int tap = 0; tap < taps; ++tap) {
      const int from_row = row * node.stride + tap / node.kernel - (node.kernel - 1) / 2;
      const int from_column = column * node.stride + tap % node.kernel - (node.kernel - 1) / 2;
      if (from_row < 0 || from_row >= in.h || from_column < 0 || from_column >= in.w) continue;
      const float* const pixels =
          &x[static_cast<std::size_t>(((image * in.h + from_row) * in.w + from_column) * in.c)];
      for (int k = 0; k < per_output; ++k) {
        const float* const w = &packed[static_cast<std::size_t>((tap * per_output + k) * out.c)];
        for (int c = 0; c < out.c; ++c) sums[c] += w[c] * pixels[depthwise ? c : k];
      }
    }
    const float* residual = nullptr;
    if (!r.empty()) {
      const Shape shape = graph.value(node.residual).shape;
      const int scale = out.h / shape.h;
      residual = &r[static_cast<std::size_t>(((image * shape.h + row / scale) * shape.w + column / scale) * out.c)];
    }
    for (int c = 0; c < out.c; ++c) {
      const float added = residual == nullptr ? 0 : residual[c];
      if (node.residual_first) sums[c] += added;
      sums[c] = activated(sums[c], node.act);
      if (!node.residual_first) sums[c] += added;
    }
  }
  return y;
}

// By name: ‖found − exact‖ / ‖exact‖ of every convolution's output.
inline std::map<std::string, double> layer_errors(const Graph& graph, const TensorLookup& lookup,
                                                  const ReadValue& read) {
  std::map<std::string, double> errors;
  for (const Node& node : graph.nodes)
    if (node.op == Op::Conv)
      errors[node.name] =
          relative_difference(exact_convolution(graph, node, gather_weights(node, lookup), read), read(node.output));
  return errors;
}

}  // namespace damoyolo
