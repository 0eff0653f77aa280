#include <algorithm>

#include "engine/passes/passes.h"
#include "engine/passes/rewrite.h"

namespace damoyolo {
namespace {

// The convolution that makes `id`, when only one node reads it.
Node* growing_conv(Graph& graph, const Uses& uses, const std::vector<int>& maker, ValueId id) {
  const int position = maker[static_cast<std::size_t>(id)];
  if (position == kNone || !uses.only_reader(id)) return nullptr;
  Node& node = graph.nodes[static_cast<std::size_t>(position)];
  return node.op == Op::Conv ? &node : nullptr;
}

}  // namespace

void fuse_epilogues(Graph& graph) {
  const Uses uses(graph);
  // A fused node writes what its reader wrote, so producers change while we walk.
  std::vector<int> maker(graph.values.size(), kNone);
  const auto maker_of = [&](ValueId id) -> int& { return maker[static_cast<std::size_t>(id)]; };
  const auto absorb = [&](Node& conv, Node& reader) {
    maker_of(reader.output) = maker_of(conv.output);
    conv.output = reader.output;
    graph.values[static_cast<std::size_t>(conv.output)].name = conv.name;
    reader.output = kNone;
  };

  for (std::size_t i = 0; i < graph.nodes.size(); ++i) {
    Node& node = graph.nodes[i];
    maker_of(node.output) = static_cast<int>(i);
    if (node.op == Op::Activate) {
      Node* conv = growing_conv(graph, uses, maker, node.inputs[0]);
      if (conv == nullptr || conv->act != Activation::None) continue;
      conv->act = node.act;
      absorb(*conv, node);
    } else if (node.op == Op::Add) {
      ValueId sum = node.inputs[0];
      ValueId other = node.inputs[1];
      // The residual must exist when the convolution runs.
      if (maker_of(sum) < maker_of(other)) std::swap(sum, other);
      Node* conv = growing_conv(graph, uses, maker, sum);
      if (conv == nullptr || conv->residual != kNone || sum == other) continue;
      conv->residual = other;
      conv->residual_first = conv->act == Activation::None;
      absorb(*conv, node);
    }
  }
  remove_unused(graph);
}

}  // namespace damoyolo
