// What the passes share: who makes and who reads a value, and removing what nobody refers to any more.
#pragma once

#include <vector>

#include "engine/graph.h"

namespace damoyolo {

// Positions in graph.nodes. Valid until the graph changes.
struct Uses {
  explicit Uses(const Graph& graph);
  int producer(ValueId id) const { return producers_[static_cast<std::size_t>(id)]; }  // kNone: the graph's input
  const std::vector<int>& readers(ValueId id) const { return readers_[static_cast<std::size_t>(id)]; }
  // Read by exactly one node and not an output of the graph: the head's, or a feature map.
  bool only_reader(ValueId id) const { return readers(id).size() == 1 && !output_[static_cast<std::size_t>(id)]; }

 private:
  std::vector<int> producers_;
  std::vector<std::vector<int>> readers_;
  std::vector<bool> output_;
};

// Drops the nodes whose output was set to kNone, then every value and buffer that nothing refers to, renumbering.
void remove_unused(Graph& graph);

}  // namespace damoyolo
