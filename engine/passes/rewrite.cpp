#include "engine/passes/rewrite.h"

#include <utility>

namespace damoyolo {
namespace {

template <typename Visit>
void for_each_value(Graph& graph, Visit visit) {
  visit(graph.input);
  for (Node& node : graph.nodes) {
    for (ValueId& id : node.inputs) visit(id);
    visit(node.output);
    if (node.residual != kNone) visit(node.residual);
  }
  for (HeadLevel& level : graph.head) {
    visit(level.cls);
    visit(level.reg);
  }
  for (ValueId& id : graph.backbone) visit(id);
  for (ValueId& id : graph.neck) visit(id);
}

// Keeps the marked items in order; returns each old position's new one.
template <typename Item>
std::vector<int> keep_marked(std::vector<Item>& items, const std::vector<bool>& marked) {
  std::vector<int> position(items.size(), kNone);
  std::vector<Item> kept;
  for (std::size_t i = 0; i < items.size(); ++i) {
    if (!marked[i]) continue;
    position[i] = static_cast<int>(kept.size());
    kept.push_back(std::move(items[i]));
  }
  items = std::move(kept);
  return position;
}

}  // namespace

Uses::Uses(const Graph& graph)
    : producers_(graph.values.size(), kNone), readers_(graph.values.size()), output_(graph.values.size(), false) {
  for (std::size_t i = 0; i < graph.nodes.size(); ++i) {
    const Node& node = graph.nodes[i];
    producers_[static_cast<std::size_t>(node.output)] = static_cast<int>(i);
    for (const ValueId id : operands(node)) readers_[static_cast<std::size_t>(id)].push_back(static_cast<int>(i));
  }
  for (const HeadLevel& level : graph.head)
    for (const ValueId id : {level.cls, level.reg}) output_[static_cast<std::size_t>(id)] = true;
  for (const auto& features : {graph.backbone, graph.neck})
    for (const ValueId id : features) output_[static_cast<std::size_t>(id)] = true;
}

void remove_unused(Graph& graph) {
  std::erase_if(graph.nodes, [](const Node& node) { return node.output == kNone; });

  std::vector<bool> used(graph.values.size(), false);
  for_each_value(graph, [&](ValueId id) { used[static_cast<std::size_t>(id)] = true; });
  const std::vector<int> value_position = keep_marked(graph.values, used);
  for_each_value(graph, [&](ValueId& id) { id = value_position[static_cast<std::size_t>(id)]; });

  std::vector<bool> held(graph.buffers.size(), false);
  for (const Value& value : graph.values) held[static_cast<std::size_t>(value.buffer)] = true;
  const std::vector<int> buffer_position = keep_marked(graph.buffers, held);
  for (Value& value : graph.values) value.buffer = buffer_position[static_cast<std::size_t>(value.buffer)];
}

}  // namespace damoyolo
