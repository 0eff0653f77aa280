#include "engine/passes/passes.h"
#include "engine/passes/rewrite.h"

namespace damoyolo {

void fold_focus(Graph& graph) {
  const Uses uses(graph);
  for (Node& node : graph.nodes) {
    if (node.op != Op::SpaceToDepth || !uses.only_reader(node.inputs[0])) continue;
    const int producer = uses.producer(node.inputs[0]);
    if (producer == kNone) continue;
    Node& cast = graph.nodes[static_cast<std::size_t>(producer)];
    if (cast.op != Op::Cast || cast.space_to_depth) continue;
    cast.space_to_depth = true;
    cast.output = node.output;
    node.output = kNone;
  }
  remove_unused(graph);
}

}  // namespace damoyolo
