#include <utility>

#include "engine/passes/passes.h"
#include "engine/passes/rewrite.h"

namespace damoyolo {
namespace {

struct Candidate {
  std::size_t conv, concat, upsample;  // positions of the three nodes
};

bool find_candidate(const Graph& graph, Candidate& found) {
  const Uses uses(graph);
  for (std::size_t i = 0; i < graph.nodes.size(); ++i) {
    const Node& conv = graph.nodes[i];
    if (conv.op != Op::Conv || conv.kernel != 1 || conv.stride != 1 || conv.groups != 1 || conv.residual != kNone)
      continue;
    const int concat = uses.producer(conv.inputs[0]);
    if (concat == kNone || !uses.only_reader(conv.inputs[0])) continue;
    const Node& joined = graph.nodes[static_cast<std::size_t>(concat)];
    if (joined.op != Op::Concat || joined.inputs.size() < 2 || !uses.only_reader(joined.inputs.back())) continue;
    const int upsample = uses.producer(joined.inputs.back());
    if (upsample == kNone || graph.nodes[static_cast<std::size_t>(upsample)].op != Op::Upsample) continue;
    found = {i, static_cast<std::size_t>(concat), static_cast<std::size_t>(upsample)};
    return true;
  }
  return false;
}

void split(Graph& graph, const Candidate& at) {
  const ValueId low = graph.nodes[at.upsample].inputs[0];
  const int low_channels = graph.value(low).shape.c;

  // The low-resolution product takes the place of the upsampling; bias and activation stay with the other.
  Node product = graph.nodes[at.conv];
  product.name += ".low";
  product.inputs = {low};
  product.act = Activation::None;
  for (WeightSlice& slice : product.weights) {
    slice.in_begin = slice.in_end - low_channels;
    slice.bias = false;
  }
  product.output = add_value(graph, product.name, output_shape(graph, product));

  Node& conv = graph.nodes[at.conv];
  Node& concat = graph.nodes[at.concat];
  for (WeightSlice& slice : conv.weights) slice.in_end -= low_channels;
  conv.residual = product.output;
  conv.residual_first = true;
  concat.inputs.pop_back();
  if (concat.inputs.size() == 1) {
    conv.inputs = concat.inputs;
    concat.output = kNone;
  } else {
    Shape rest = graph.value(concat.output).shape;
    rest.c -= low_channels;
    concat.output = add_value(graph, concat.name, rest);
    conv.inputs = {concat.output};
  }
  graph.nodes[at.upsample] = std::move(product);
  remove_unused(graph);
}

}  // namespace

void split_upsampled(Graph& graph) {
  for (Candidate candidate{}; find_candidate(graph, candidate);) split(graph, candidate);
}

}  // namespace damoyolo
