// From a model's structure to its graph.
#pragma once

#include <string>
#include <vector>

#include "engine/graph.h"
#include "engine/model/spec.h"

namespace damoyolo {

// Where the weights of one convolution stand in a training checkpoint (module paths; tensors add ".weight" etc.).
struct ConvSource {
  enum class Kind {
    ConvBn,   // `conv`.weight without bias, then BatchNorm `bn`
    RepConv,  // `conv`.rbr_dense.{conv,bn} + `conv`.rbr_1x1.{conv,bn}, or deployed: `conv`.rbr_reparam with bias
    Biased,   // `conv`.weight and `conv`.bias
  };
  Kind kind{};
  std::string node;   // the graph node, and the tensor prefix in the weights file
  std::string conv;   // the module in the checkpoint
  std::string bn;     // ConvBn only
  std::string scale;  // a learned scalar that multiplies weight and bias; empty: none
  int out = 0, in_per_group = 0, kernel = 0;
};

struct BuiltModel {
  Graph graph;                      // plain: one node per operation, nothing fused
  std::vector<ConvSource> sources;  // one per convolution, in the graph's order
};

// Builds the plain graph for `batch` images of height × width. Throws Error unless both are positive multiples of 32.
BuiltModel build_model(const ModelSpec& spec, int batch, int height, int width);

}  // namespace damoyolo
