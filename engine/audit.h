// What 16 bits cost, layer by layer.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "engine/graph.h"
#include "engine/probe.h"

namespace damoyolo {

// Networks from optimized graphs, all in the precision that is audited (Backend::probe).
using ProbeMaker = std::function<std::unique_ptr<Probe>(Graph)>;

// [1, height, width, 3] RGB at the network's size.
using NetworkImage = std::vector<std::uint8_t>;

// Errors are relative, ‖found − exact‖ / ‖exact‖ over all images together, against the fp32 network.
struct LayerError {
  std::string name;        // of the convolution
  std::int64_t flops = 0;  // for one image
  bool kept = false;       // computes in fp32 in the audited network, too: `local` and `effect` are 0
  double local = 0;        // of the layer's output when its inputs are the fp32 network's, rounded
  double accumulated = 0;  // of the layer's output where all layers before it are rounded, too
  double effect = 0;       // at the head's outputs when this layer alone computes in 16 bits
};

// Of the head's outputs: all levels together, before decoding.
struct HeadError {
  double cls = 0, reg = 0;  // relative, of the class logits and of the box bins' logits
  double all() const;       // the root of the mean of their squares
};

// 20·log10(1/error); infinite for 0.
double signal_to_noise(double relative_error);

class Audit {
 public:
  // An optimized graph for one image, and the layers that are kept in fp32 in any case. Runs the fp32 network: that of
  // the probes with all layers kept.
  Audit(Graph graph, std::vector<std::string> kept, ProbeMaker probe, std::vector<NetworkImage> images);

  // Every convolution in order; `effect` is left out. Runs the fp32 network with a rounded copy beside each layer, and
  // the rounded network.
  std::vector<LayerError> compare_layers() const;

  // Adds `effect`: makes a network for every layer, in which it alone is rounded.
  void measure_effects(std::vector<LayerError>& layers) const;

  // With these convolutions, too, in fp32 and the others rounded.
  HeadError head_error(std::vector<std::string> keep_fp32) const;

 private:
  using Outputs = std::vector<std::vector<float>>;  // cls of all levels, then reg

  static Outputs outputs(const Graph& graph, Probe& probe, const NetworkImage& image);

  Graph graph_;
  std::vector<std::string> kept_;
  ProbeMaker probe_;
  std::vector<NetworkImage> images_;
  std::vector<Outputs> exact_;  // by image
};

// The fewest layers to keep, taken in order of their effect, so that `meets_target`. It is called for no more than
// 2·log2(layers) + 2 lists; keeping all of them is taken to meet any target.
std::vector<std::string> shortest_list(const std::vector<LayerError>& layers,
                                       const std::function<bool(const std::vector<std::string>&)>& meets_target);

}  // namespace damoyolo
