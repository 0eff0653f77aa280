#include "engine/model/build.h"

#include "engine/core/error.h"
#include "engine/model/builder.h"

namespace damoyolo {

BuiltModel build_model(const ModelSpec& spec, int batch, int height, int width) {
  if (batch < 1 || height < 32 || width < 32 || height % 32 != 0 || width % 32 != 0)
    throw Error("a network of {}×{}×{} (batch, height, width) cannot be built, expected positive multiples of 32",
                batch, height, width);
  BuiltModel model;
  Builder build(model);
  Graph& graph = model.graph;
  graph.input = add_value(graph, "image", {batch, height, width, 3}, Content::ImageU8);
  graph.backbone = build_backbone(build, spec.backbone, graph.input);
  graph.neck = build_neck(build, spec.neck, graph.backbone);
  build_head(build, spec.head, graph.neck);
  validate(graph);
  return model;
}

}  // namespace damoyolo
