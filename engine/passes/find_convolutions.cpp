#include <fmt/ranges.h>

#include <algorithm>
#include <numeric>
#include <string_view>

#include "engine/core/error.h"
#include "engine/passes/passes.h"

namespace damoyolo {
namespace {

bool means(std::string_view pattern, std::string_view name) {
  if (!pattern.ends_with('*')) return pattern == name;
  return name.starts_with(pattern.substr(0, pattern.size() - 1));
}

// Characters to insert, remove or exchange (Levenshtein's distance).
std::size_t distance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), std::size_t{0});
  for (std::size_t i = 0; i < a.size(); ++i) {
    std::size_t diagonal = row[0]++;
    for (std::size_t j = 0; j < b.size(); ++j) {
      const std::size_t exchanged = diagonal + (a[i] == b[j] ? 0 : 1);
      diagonal = row[j + 1];
      row[j + 1] = std::min({exchanged, row[j] + 1, row[j + 1] + 1});
    }
  }
  return row.back();
}

Error unknown(const Graph& graph, std::string_view pattern) {
  constexpr std::size_t kShown = 3;
  const bool prefix = pattern.ends_with('*');
  const std::string_view wanted = prefix ? pattern.substr(0, pattern.size() - 1) : pattern;
  std::vector<std::pair<std::size_t, std::string>> names;
  for (const Node& node : graph.nodes)
    if (node.op == Op::Conv)
      names.emplace_back(
          distance(wanted, std::string_view(node.name).substr(0, prefix ? wanted.size() : node.name.npos)), node.name);
  std::stable_sort(names.begin(), names.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
  std::vector<std::string> nearest;
  for (std::size_t i = 0; i < std::min(kShown, names.size()); ++i) nearest.push_back(names[i].second);
  return Error("no convolution of the graph is called \"{}\", the nearest names are {}", pattern,
               fmt::join(nearest, ", "));
}

}  // namespace

std::vector<std::size_t> find_convolutions(const Graph& graph, std::span<const std::string> names) {
  std::vector<bool> meant(graph.nodes.size(), false);
  for (const std::string& name : names) {
    bool found = false;
    for (std::size_t i = 0; i < graph.nodes.size(); ++i) {
      if (graph.nodes[i].op != Op::Conv || !means(name, graph.nodes[i].name)) continue;
      meant[i] = found = true;
    }
    if (!found) throw unknown(graph, name);
  }
  std::vector<std::size_t> positions;
  for (std::size_t i = 0; i < meant.size(); ++i)
    if (meant[i]) positions.push_back(i);
  return positions;
}

}  // namespace damoyolo
