#include <array>

#include "engine/passes/passes.h"
#include "engine/passes/rewrite.h"

namespace damoyolo {

void fuse_spp_pools(Graph& graph) {
  const Uses uses(graph);
  constexpr std::array kKernels{5, 9, 13};
  for (std::size_t i = 0; i < graph.nodes.size(); ++i) {
    if (graph.nodes[i].op != Op::Concat || graph.nodes[i].inputs.size() != kKernels.size() + 1) continue;
    const std::vector<ValueId> parts = graph.nodes[i].inputs;
    std::vector<int> pools;
    for (std::size_t p = 0; p < kKernels.size(); ++p) {
      const ValueId part = parts[p + 1];
      const int producer = uses.producer(part);
      if (producer == kNone || !uses.only_reader(part)) break;
      const Node& pool = graph.nodes[static_cast<std::size_t>(producer)];
      if (pool.op == Op::MaxPool && pool.kernel == kKernels[p] && pool.inputs[0] == parts[0])
        pools.push_back(producer);
    }
    if (pools.size() != kKernels.size()) continue;

    // The last of the three makes the wide value; the others go.
    Node& spp = graph.nodes[static_cast<std::size_t>(pools.back())];
    spp.op = Op::SppPool;
    spp.name = graph.nodes[i].name + ".pools";
    spp.kernel = 1;
    spp.output = add_value(graph, spp.name, output_shape(graph, spp));
    for (std::size_t p = 0; p + 1 < pools.size(); ++p) graph.nodes[static_cast<std::size_t>(pools[p])].output = kNone;
    graph.nodes[i].inputs = {parts[0], spp.output};
  }
  remove_unused(graph);
}

}  // namespace damoyolo
