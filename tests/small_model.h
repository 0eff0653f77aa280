// A small network around what no released model leaves to a plan: pixels that something else than a convolution reads,
// and an upsampling that no pass takes into another node. A test of an operation that no model has yet puts it here.
#pragma once

#include "engine/model/builder.h"

namespace damoyolo {

inline constexpr HeadSpec kSmallHead{.classes = 3, .reg_max = 4, .kernel = 1};

// Height and width are even.
inline BuiltModel small_model(int batch, int height, int width) {
  BuiltModel model;
  Builder build(model);
  Graph& graph = model.graph;
  graph.input = add_value(graph, "image", {batch, height, width, 3}, Content::ImageU8);
  const ValueId pixels = build.upsample("pixels", build.cast("cast", graph.input));
  // By this name RandomWeights knows that it reads pixels.
  const ValueId stem = build.conv_bn("backbone.0", "", kConvBn, pixels, {.out = 24, .kernel = 3, .stride = 2});
  const ValueId x = build.activate(stem, Activation::Relu);
  const ValueId half = build.conv_bn("backbone.1", "", kConvBn, x, {.out = 11, .kernel = 3, .stride = 2});
  const ValueId low = build.activate(half, Activation::Silu);
  const ValueId wide = build.conv_bn("neck.0", "", kConvBn, build.upsample("up", low), {.out = 16, .kernel = 3});
  const ValueId y = build.activate(wide, Activation::Relu);
  graph.backbone = {x, low, low};
  graph.neck = {y, y, y};
  build_head(build, kSmallHead, graph.neck);
  validate(graph);
  return model;
}

}  // namespace damoyolo
