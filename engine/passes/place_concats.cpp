#include <algorithm>
#include <set>

#include "engine/passes/passes.h"
#include "engine/passes/rewrite.h"

namespace damoyolo {
namespace {

bool whole_buffer(const Graph& graph, ValueId id) { return graph.value(id).shape.c == graph.buffer_of(id).shape.c; }

// Parts fill a buffer of their own each, except that one may be a view into a wider buffer which then grows: to the
// left for the parts before it, to the right for the parts after it, so it must touch that side.
bool placeable(const Graph& graph, const Node& concat) {
  std::set<BufferId> buffers;
  int views = 0;
  for (std::size_t i = 0; i < concat.inputs.size(); ++i) {
    const Value& part = graph.value(concat.inputs[i]);
    const Buffer& buffer = graph.buffer(part.buffer);
    if (!buffers.insert(part.buffer).second || buffer.content != Content::Activation) return false;
    if (whole_buffer(graph, concat.inputs[i])) continue;
    const bool parts_before = i > 0;
    const bool parts_after = i + 1 < concat.inputs.size();
    if (++views > 1 || (parts_before && part.channel_offset != 0) ||
        (parts_after && part.channel_offset + part.shape.c != buffer.shape.c))
      return false;
  }
  return true;
}

void place(Graph& graph, const Node& concat) {
  const ValueId first = concat.inputs.front();
  const auto joined = static_cast<BufferId>(graph.buffers.size());
  Buffer buffer{graph.value(first).shape, Content::Activation};
  buffer.shape.c = 0;
  for (const ValueId part : concat.inputs) {
    const BufferId moved = graph.value(part).buffer;
    for (Value& value : graph.values) {
      if (value.buffer != moved) continue;
      value.buffer = joined;
      value.channel_offset += buffer.shape.c;
    }
    buffer.shape.c += graph.buffer(moved).shape.c;
  }
  graph.buffers.push_back(buffer);
  Value& output = graph.values[static_cast<std::size_t>(concat.output)];
  output.buffer = joined;
  output.channel_offset = graph.value(first).channel_offset;
}

}  // namespace

void place_concats(Graph& graph) {
  for (Node& node : graph.nodes) {
    if (node.op != Op::Concat || !placeable(graph, node)) continue;
    place(graph, node);
    node.output = kNone;
  }
  remove_unused(graph);
}

}  // namespace damoyolo
