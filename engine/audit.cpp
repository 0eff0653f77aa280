#include "engine/audit.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <iterator>
#include <map>
#include <utility>

#include "engine/passes/passes.h"

namespace damoyolo {
namespace {

const std::vector<std::string> kAll{"*"};

// ‖found − exact‖ / ‖exact‖, summed up over many pairs.
class RelativeError {
 public:
  void add(const std::vector<float>& exact, const std::vector<float>& found) {
    for (std::size_t i = 0; i < exact.size(); ++i) {
      const double difference = double{found[i]} - exact[i];
      noise_ += difference * difference;
      signal_ += double{exact[i]} * exact[i];
    }
  }
  double value() const { return noise_ == 0 ? 0 : std::sqrt(noise_ / signal_); }

 private:
  double noise_ = 0, signal_ = 0;
};

Graph kept_in_fp32(Graph graph, std::span<const std::string> names) {
  keep_fp32(graph, names);
  return graph;
}

ValueId output_of(const Graph& graph, const std::string& name) {
  return std::ranges::find(graph.nodes, name, &Node::name)->output;
}

// The fp32 network with a copy of every convolution that reads the same, rounded, and computes in 16 bits.
Graph with_rounded_copies(const Graph& plain) {
  Graph graph = kept_in_fp32(plain, kAll);
  std::vector<Node> nodes;
  std::map<ValueId, ValueId> rounded;
  const auto round = [&](ValueId id) {
    const auto [copy, added] = rounded.try_emplace(id, kNone);
    if (added) {
      const Value value = graph.value(id);
      copy->second = add_value(graph, value.name + ".rounded", value.shape);
      Node& node = nodes.emplace_back();
      node.op = Op::Convert;
      node.name = graph.value(copy->second).name;
      node.inputs = {id};
      node.output = copy->second;
    }
    return copy->second;
  };
  for (Node& node : graph.nodes) {
    nodes.push_back(node);
    if (node.op != Op::Conv) continue;
    Node copy = node;
    copy.name += ".copy";
    copy.inputs = {round(node.inputs[0])};
    if (node.residual != kNone) copy.residual = round(node.residual);
    copy.output = add_value(graph, copy.name, graph.value(node.output).shape,
                            plain.buffer_of(output_of(plain, node.name)).content);
    nodes.push_back(std::move(copy));
  }
  graph.nodes = std::move(nodes);
  return graph;
}

}  // namespace

double HeadError::all() const { return std::sqrt((cls * cls + reg * reg) / 2); }

double signal_to_noise(double relative_error) { return -20 * std::log10(relative_error); }

Audit::Audit(Graph graph, std::vector<std::string> kept, ProbeMaker probe, std::vector<NetworkImage> images)
    : graph_(std::move(graph)), kept_(std::move(kept)), probe_(std::move(probe)), images_(std::move(images)) {
  const Graph fp32 = kept_in_fp32(graph_, kAll);
  const std::unique_ptr<Probe> network = probe_(fp32);
  for (const NetworkImage& image : images_) exact_.push_back(outputs(fp32, *network, image));
}

std::vector<LayerError> Audit::compare_layers() const {
  const Graph side_by_side = with_rounded_copies(graph_), audited = kept_in_fp32(graph_, kept_);
  const std::unique_ptr<Probe> exact = probe_(side_by_side), actual = probe_(audited);
  std::vector<LayerError> layers;
  for (const Node& node : graph_.nodes)
    if (node.op == Op::Conv) layers.push_back({node.name, flops(graph_, node)});
  for (const std::size_t position : find_convolutions(graph_, kept_))
    std::ranges::find(layers, graph_.nodes[position].name, &LayerError::name)->kept = true;

  std::vector<RelativeError> local(layers.size()), accumulated(layers.size());
  for (const NetworkImage& image : images_) {
    exact->run(image);
    actual->run(image);
    for (std::size_t i = 0; i < layers.size(); ++i) {
      const std::string& name = layers[i].name;
      const std::vector<float> expected = exact->read(output_of(side_by_side, name));
      if (!layers[i].kept) local[i].add(expected, exact->read(output_of(side_by_side, name + ".copy")));
      accumulated[i].add(expected, actual->read(output_of(audited, name)));
    }
  }
  for (std::size_t i = 0; i < layers.size(); ++i) {
    layers[i].local = local[i].value();
    layers[i].accumulated = accumulated[i].value();
  }
  return layers;
}

void Audit::measure_effects(std::vector<LayerError>& layers) const {
  for (LayerError& layer : layers) {
    if (layer.kept) continue;
    std::vector<std::string> others;
    for (const LayerError& other : layers)
      if (other.name != layer.name) others.push_back(other.name);
    layer.effect = head_error(others).all();
  }
}

HeadError Audit::head_error(std::vector<std::string> keep) const {
  keep.insert(keep.end(), kept_.begin(), kept_.end());
  const Graph graph = kept_in_fp32(graph_, keep);
  const std::unique_ptr<Probe> probe = probe_(graph);
  RelativeError cls, reg;
  for (std::size_t i = 0; i < images_.size(); ++i) {
    const Outputs found = outputs(graph, *probe, images_[i]);
    for (std::size_t k = 0; k < found.size(); ++k) (k < found.size() / 2 ? cls : reg).add(exact_[i][k], found[k]);
  }
  return {cls.value(), reg.value()};
}

Audit::Outputs Audit::outputs(const Graph& graph, Probe& probe, const NetworkImage& image) {
  probe.run(image);
  Outputs outputs;
  for (const HeadLevel& level : graph.head) outputs.push_back(probe.read(level.cls));
  for (const HeadLevel& level : graph.head) outputs.push_back(probe.read(level.reg));
  return outputs;
}

std::vector<std::string> shortest_list(const std::vector<LayerError>& layers,
                                       const std::function<bool(const std::vector<std::string>&)>& meets_target) {
  std::vector<LayerError> by_effect;
  std::ranges::copy_if(layers, std::back_inserter(by_effect), [](const LayerError& layer) { return !layer.kept; });
  std::ranges::stable_sort(by_effect, std::ranges::greater(), &LayerError::effect);
  const auto first = [&](std::size_t count) {
    std::vector<std::string> names;
    for (std::size_t i = 0; i < count; ++i) names.push_back(by_effect[i].name);
    return names;
  };
  // Twice as many until it is enough, then between that and the last that was too few.
  std::size_t too_few = 0, enough = 1;
  for (; enough < by_effect.size() && !meets_target(first(enough)); enough *= 2) too_few = enough;
  enough = std::min(enough, by_effect.size());
  while (enough - too_few > 1) {
    const std::size_t middle = (too_few + enough) / 2;
    (meets_target(first(middle)) ? enough : too_few) = middle;
  }
  return first(enough);
}

}  // namespace damoyolo
