// A network ready to run on the CPU: the plan, its arena and one oneDNN primitive per convolution.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "engine/conv_weights.h"
#include "engine/cpu/plan.h"
#include "engine/decode.h"
#include "engine/profile.h"

namespace damoyolo::cpu {

struct NetworkOptions {
  PlanOptions plan;
  int threads = 0;            // OpenMP threads; 0: as many as the process may use
  bool poison_freed = false;  // debug: memory without a live tensor is filled with NaN after every step
};

// Batch and size are the graph's. One object serves one thread at a time.
class Network {
 public:
  // Packs the weights; the lookup is not kept. Throws Error when a weight is missing or oneDNN cannot run a node.
  Network(Graph graph, const TensorLookup& lookup, const NetworkOptions& options);
  ~Network();
  Network(Network&&) noexcept;

  // `images`: [n, h, w, 3] RGB at the network's size; throws Error when the length differs.
  void run(std::span<const std::uint8_t> images);

  // The head's maps of the last run; valid until the next. `classes` and `reg_max` as the model has them.
  HeadMaps head(int classes, int reg_max) const;

  // A tensor of the plan as [n, h, w, c] floats. Only kept features and the head still hold their data after run().
  std::vector<float> read(TensorId id) const;

  const Graph& graph() const;
  const Plan& plan() const;
  // One line per step (kernel, tensors, arena offsets), then totals.
  std::string plan_text() const;

  // Runs `repetitions` times; every step takes the least of its times.
  std::vector<StepTime> profile(std::span<const std::uint8_t> images, int repetitions);

  std::int64_t memory_bytes() const;  // the arena and the packed weights

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace damoyolo::cpu
