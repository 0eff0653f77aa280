// Networks whose pairs of convolutions our own kernels compute, in one launch or in two that add up in the same order:
// both must give the same bytes, on any device.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "engine/core/error.h"
#include "engine/cuda/conv_problem.h"
#include "engine/cuda/network.h"
#include "engine/cuda/own_convolution.h"
#include "engine/model/spec.h"
#include "tests/wrong_elements.h"

namespace damoyolo::cuda {

// The best of our own by prediction, of those for 9.0 that share no sums and whose configuration is accepted.
template <typename Predicate>
OwnConvolution own_unshared(const ConvProblem& problem, const DeviceTraits& device, Predicate accepted) {
  for (const OwnConvolution& one : own_convolutions(problem, device, own_kernels(), ~std::size_t{0}))
    if (one.kernel->generation == ConvGeneration::Sm90 && one.config.split == 1 && accepted(one.config)) return one;
  throw Error("a kernel of our own was expected for a convolution of {} to {} channels", problem.in.c, problem.out.c);
}

class OwnPairs {
 public:
  using Others = std::function<std::unique_ptr<ConvKernel>(const ConvProblem&, const ConvWeights&)>;

  // The pairs of an optimized graph in BF16 for which there are kernels. `others` computes what is in none of them.
  OwnPairs(const Graph& graph, const DeviceTraits& device, Others others)
      : device_(device), others_(std::move(others)) {
    PlanOptions joining;
    joining.activations = DType::BF16;
    joining.joined = joinable_pairs(graph, joining.activations);
    const auto node = [&](int position) { return graph.nodes[static_cast<std::size_t>(position)].name; };
    for (const Step& step : lower(graph, joining).steps) {
      if (step.then == kNone) continue;
      const auto offered = own_convolutions(conv_problem(graph, step, false), device, own_kernels(), 1);
      if (!offered.empty())
        pairs_.push_back({name_of(step, graph), node(step.node), node(step.then), offered.front()});
    }
  }

  std::vector<std::string> names() const {
    std::vector<std::string> names;
    for (const Pair& pair : pairs_) names.push_back(pair.name);
    return names;
  }

  // Those named in one launch. Must not outlive this.
  KernelChooser kernels(const std::vector<std::string>& joined) const {
    KernelChooser choose;
    choose.one = [this](const std::string& node, const ConvProblem& problem, const ConvWeights& weights) {
      const auto first = std::ranges::find(pairs_, node, &Pair::first);
      const bool is_second = std::ranges::count(pairs_, node, &Pair::second) > 0;
      if (first == pairs_.end() && !is_second) return others_(problem, weights);
      // In the order of the pair's sum: of the same steps, or where each has all input channels.
      const OwnConvolution own = own_unshared(problem, device_, [&](const kernels::ConvConfig& config) {
        if (is_second) return true;
        const kernels::ConvConfig& both = first->both.config;
        return config.taps == both.taps && (config.k == both.k || problem.in.c <= std::min(config.k, both.k));
      });
      return make_own_kernel(problem, *own.kernel, own.config, weights);
    };
    choose.pair = [this, joined](const ConvPair& pair) -> std::unique_ptr<ConvKernel> {
      const auto found = std::ranges::find(pairs_, pair.name, &Pair::name);
      if (found == pairs_.end() || std::ranges::count(joined, pair.name) == 0) return nullptr;
      return make_own_kernel(pair.problem, *found->both.kernel, found->both.config, pair.weights);
    };
    return choose;
  }

 private:
  struct Pair {
    std::string name, first, second;  // of both, and of the nodes
    OwnConvolution both;
  };
  DeviceTraits device_;
  Others others_;
  std::vector<Pair> pairs_;
};

// Runs a network once, on a runtime that is current.
inline std::vector<std::byte> output_of(Network& network, Runtime& runtime, StreamHandle stream,
                                        std::span<const std::uint8_t> pixels) {
  runtime.copy(network.input().data(), pixels.data(), pixels.size(), stream);
  network.run();
  std::vector<std::byte> output(network.output().size());
  runtime.copy(output.data(), network.output().data(), output.size(), stream);
  runtime.synchronize(stream);
  return output;
}

// In words, which pairs do not give what their two launches give, and by how much; "" when all do. output: floats, of
// the network with these kernels.
inline std::string describe_wrong_pairs(const OwnPairs& pairs,
                                        const std::function<std::vector<std::byte>(const KernelChooser&)>& output) {
  const std::vector<std::byte> expected = output(pairs.kernels({}));
  const auto floats = [](const std::vector<std::byte>& bytes) {
    std::vector<float> values(bytes.size() / sizeof(float));
    std::memcpy(values.data(), bytes.data(), values.size() * sizeof(float));
    return values;
  };
  const auto difference = [&](const std::vector<std::byte>& got) {
    const std::vector<float> apart = floats(expected);
    const std::vector<double> exact(apart.begin(), apart.end()), none(apart.size(), 0.);
    return describe_wrong({1, static_cast<int>(apart.size()), 1}, floats(got), exact, none);
  };
  const std::vector<std::byte> together = output(pairs.kernels(pairs.names()));
  if (together == expected) return "";
  std::string wrong =
      "together they give other bytes than apart: " + difference(together) + "; by themselves these do:";
  for (const std::string& name : pairs.names())
    if (const auto alone = output(pairs.kernels({name})); alone != expected)
      wrong += "\n" + name + ": " + difference(alone);
  return wrong;
}

}  // namespace damoyolo::cuda
