#include <algorithm>
#include <map>
#include <utility>

#include "engine/passes/passes.h"
#include "engine/passes/rewrite.h"

namespace damoyolo {
namespace {

// Which channels of each buffer somebody reads in one form.
class Wanted {
 public:
  explicit Wanted(const Graph& graph) : graph_(graph) {
    for (const Buffer& buffer : graph.buffers) channels_.emplace_back(static_cast<std::size_t>(buffer.shape.c), false);
  }
  void mark(ValueId id) {
    for (int c = 0; c < graph_.value(id).shape.c; ++c) channel(id, c) = true;
  }
  int count(ValueId id) {
    int wanted = 0;
    for (int c = 0; c < graph_.value(id).shape.c; ++c) wanted += channel(id, c);
    return wanted;
  }
  bool any(ValueId id) { return count(id) > 0; }
  bool all(ValueId id) { return count(id) == graph_.value(id).shape.c; }

 private:
  std::vector<bool>::reference channel(ValueId id, int c) {
    const Value& value = graph_.value(id);
    return channels_[static_cast<std::size_t>(value.buffer)][static_cast<std::size_t>(value.channel_offset + c)];
  }
  const Graph& graph_;
  std::vector<std::vector<bool>> channels_;
};

// A buffer of activations gets a twin of Float32, with the same channels, where a node that computes in fp32 reads
// it. Such nodes read and write twins; a conversion follows them where others read what they write, and follows
// others where they read what those write.
class Keeping {
 public:
  Keeping(Graph& graph, const std::vector<std::size_t>& kept)
      : graph_(graph), fp32_(graph.nodes.size(), false), rounded_(graph), exact_(graph) {
    for (const std::size_t position : kept) fp32_[position] = true;
  }

  void run() {
    for (std::size_t i = fp32_.size(); i-- > 0;) {
      const Node& node = graph_.nodes[i];
      // What is no convolution computes in the form that all its readers want; they come after it.
      if (node.op != Op::Conv) fp32_[i] = exact_.any(node.output) && !rounded_.any(node.output);
      for (const ValueId id : operands(node)) (fp32_[i] ? exact_ : rounded_).mark(id);
    }
    for (const auto& features : {graph_.backbone, graph_.neck})
      for (const ValueId id : features)
        if (!exact_.all(id)) rounded_.mark(id);  // each is in one piece

    for (std::size_t i = 0; i < fp32_.size(); ++i) rewrite(std::move(graph_.nodes[i]), fp32_[i]);
    graph_.nodes = std::move(nodes_);
    for (auto* features : {&graph_.backbone, &graph_.neck})
      for (ValueId& id : *features)
        if (!rounded_.all(id)) id = twin(id);
    remove_unused(graph_);
  }

 private:
  void rewrite(Node node, bool fp32) {
    const ValueId output = node.output;
    if (fp32) {
      for (ValueId& id : node.inputs) id = twin(id);
      if (node.residual != kNone) node.residual = twin(node.residual);
    }
    if (graph_.buffer_of(output).content == Content::Float32) {
      nodes_.push_back(std::move(node));
      return;
    }
    const bool exact = exact_.any(output), rounded = rounded_.any(output);
    // A dense convolution writes its sums as Float32 as well as rounded.
    const bool writes_exact = fp32 || (exact && !rounded && node.op == Op::Conv && node.groups == 1);
    ValueId made = output;
    if (writes_exact) {
      const Value& value = graph_.value(output);
      made = exact ? twin(output) : add_value(graph_, value.name, value.shape, Content::Float32);
    }
    const std::string name = node.name;
    node.output = made;
    nodes_.push_back(std::move(node));
    if (writes_exact && rounded) convert(made, output, name + ".from_fp32");
    if (!writes_exact && exact) convert(made, twin(output), name + ".to_fp32");
  }

  void convert(ValueId from, ValueId to, std::string name) {
    Node& node = nodes_.emplace_back();
    node.op = Op::Convert;
    node.name = std::move(name);
    node.inputs = {from};
    node.output = to;
  }

  // The same channels as Float32.
  ValueId twin(ValueId id) {
    const Value value = graph_.value(id);
    const Buffer buffer = graph_.buffer(value.buffer);
    if (buffer.content != Content::Activation) return id;
    if (const auto known = values_.find(id); known != values_.end()) return known->second;
    const auto [place, added] = buffers_.try_emplace(value.buffer, static_cast<BufferId>(graph_.buffers.size()));
    if (added) graph_.buffers.push_back({buffer.shape, Content::Float32});
    graph_.values.push_back({value.name, value.shape, place->second, value.channel_offset});
    return values_[id] = static_cast<ValueId>(graph_.values.size() - 1);
  }

  Graph& graph_;
  std::vector<bool> fp32_;  // by node: whether it computes in fp32
  Wanted rounded_, exact_;
  std::map<BufferId, BufferId> buffers_;  // their twins
  std::map<ValueId, ValueId> values_;
  std::vector<Node> nodes_;
};

}  // namespace

void keep_fp32(Graph& graph, std::span<const std::string> names) {
  const std::vector<std::size_t> kept = find_convolutions(graph, names);
  if (!kept.empty()) Keeping(graph, kept).run();
}

}  // namespace damoyolo
