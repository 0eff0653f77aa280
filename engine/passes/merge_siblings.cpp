#include <algorithm>
#include <utility>

#include "engine/passes/passes.h"
#include "engine/passes/rewrite.h"

namespace damoyolo {
namespace {

bool mergeable(const Graph& graph, const Node& a, const Node& b) {
  return a.op == Op::Conv && b.op == Op::Conv && a.inputs == b.inputs && a.kernel == b.kernel &&
         a.stride == b.stride && a.groups == 1 && b.groups == 1 && a.act == b.act && a.residual == kNone &&
         b.residual == kNone && graph.buffer_of(a.output).content == graph.buffer_of(b.output).content;
}

// Where in the merged channels a sibling must stand so that a concatenation can grow around it: one that opens a
// concatenation comes last (the other parts follow it), one that closes a concatenation comes first.
int rank(const Graph& graph, const Uses& uses, ValueId id) {
  for (const int reader : uses.readers(id)) {
    const Node& node = graph.nodes[static_cast<std::size_t>(reader)];
    if (node.op != Op::Concat) continue;
    if (node.inputs.front() == id) return 1;
    if (node.inputs.back() == id) return -1;
  }
  return 0;
}

// "neck.merge_3.conv2" and "neck.merge_3.conv1" → "neck.merge_3.conv2+conv1".
std::string joined_name(const std::string& first, const std::string& second) {
  const auto differ = std::mismatch(first.begin(), first.end(), second.begin(), second.end());
  const auto common = std::string(first.begin(), differ.first).rfind('.');
  return first + "+" + second.substr(common == std::string::npos ? 0 : common + 1);
}

}  // namespace

void merge_siblings(Graph& graph) {
  const Uses uses(graph);
  for (std::size_t i = 0; i < graph.nodes.size(); ++i) {
    if (graph.nodes[i].output == kNone) continue;
    std::vector<std::size_t> siblings{i};
    for (std::size_t j = i + 1; j < graph.nodes.size(); ++j)
      if (graph.nodes[j].output != kNone && mergeable(graph, graph.nodes[i], graph.nodes[j])) siblings.push_back(j);
    if (siblings.size() == 1) continue;
    std::stable_sort(siblings.begin(), siblings.end(), [&](std::size_t a, std::size_t b) {
      return rank(graph, uses, graph.nodes[a].output) < rank(graph, uses, graph.nodes[b].output);
    });

    Node merged = graph.nodes[siblings.front()];
    merged.weights.clear();
    for (const std::size_t sibling : siblings) {
      const Node& node = graph.nodes[sibling];
      merged.weights.insert(merged.weights.end(), node.weights.begin(), node.weights.end());
      if (sibling != siblings.front()) merged.name = joined_name(merged.name, node.name);
    }
    merged.output = add_value(graph, merged.name, output_shape(graph, merged), graph.buffer_of(merged.output).content);

    int offset = 0;
    for (const std::size_t sibling : siblings) {
      Value& part = graph.values[static_cast<std::size_t>(graph.nodes[sibling].output)];
      part.buffer = graph.value(merged.output).buffer;
      part.channel_offset = offset;
      offset += part.shape.c;
      graph.nodes[sibling].output = kNone;
    }
    graph.nodes[i] = std::move(merged);
  }
  remove_unused(graph);
}

}  // namespace damoyolo
