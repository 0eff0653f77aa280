// One network for one batch size on a GPU: its plan, kernels and memory, run step by step or as a captured graph.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "engine/conv_weights.h"
#include "engine/cuda/convolution.h"
#include "engine/cuda/kernel_choice.h"
#include "engine/cuda/plan.h"
#include "engine/cuda/runtime.h"
#include "engine/graph.h"
#include "engine/model/spec.h"
#include "engine/profile.h"
#include "kernels/candidates.h"

namespace damoyolo::cuda {

// What a network takes and gives.
enum class Task : std::uint8_t {
  Detect,   // images of any sizes → detections in their own pixels
  Forward,  // pixels at network size → every score and box
};

// Where things lie in the input of Task::Detect; offsets in bytes.
//   kernels::Image [batch], kernels::DetectionParameters, std::uint8_t wanted classes [classes]
struct DetectInput {
  DetectInput(int batch, int classes);
  std::size_t images = 0, parameters, classes, bytes;
};
// And in its output: Detection [batch, kMaxDetections], int counts [batch].
struct DetectOutput {
  explicit DetectOutput(int batch);
  std::size_t detections = 0, counts, bytes;
};
// Task::Forward takes std::uint8_t [batch, height, width, 3] and gives float scores [batch, anchors, classes], then
// boxes [batch, anchors, 4].

struct KernelChooser {
  // The kernel that computes a convolution; `node` names it in errors.
  std::function<std::unique_ptr<ConvKernel>(const std::string& node, const ConvProblem&, const ConvWeights&)> one;
  // The kernel that computes two in one launch, or null where their own are as good. OutOfDeviceMemory counts as
  // null. No function: no pairs.
  std::function<std::unique_ptr<ConvKernel>(const ConvPair&)> pair = {};
};

struct NetworkOptions {
  Task task = Task::Detect;
  PlanOptions plan;
  bool allow_tf32 = false;
  bool capture = false;      // replay one graph instead of launching step by step
  bool overlap = false;      // kernels may start before the ones before them have ended; compute capability 9.0
  bool fetch_ahead = false;  // convolutions bring the weights of the next to the second-level cache
  int max_candidates = kernels::kMaxCandidates;  // per image
};

// Not thread-safe. Steady state: run() allocates nothing.
class Network {
 public:
  // An optimized graph. The runtime and the streams (kMaxStreams of them) must outlive the network; the lookup is not
  // kept. Which pairs become one step is for choose.pair: options.plan.joined must be empty. Throws
  // Error, OutOfDeviceMemory among them.
  Network(Runtime& runtime, std::span<const StreamHandle> streams, Graph graph, const HeadSpec& head,
          const TensorLookup& lookup, const KernelChooser& choose, const NetworkOptions& options);
  ~Network();
  Network(const Network&) = delete;
  Network& operator=(const Network&) = delete;

  // Device memory, always in the same place: what run() reads, in the layout of the task, and what it writes.
  std::span<std::byte> input() const { return input_; }
  std::span<std::byte> output() const { return output_; }

  // Enqueues everything between input() and output(). It is over when the first stream has done it.
  void run();

  // Every step by itself, in order, on what the input holds: the least mean of `repetitions` launches, captured
  // together so that no launch waits for the processor, and without overlap. `candidates`: more kernels to time for
  // each convolution, in memory of their own, for as long as `seconds` go, an equal part for each; those that cannot
  // be made are left out.
  std::vector<StepTime> profile(int repetitions, const TensorLookup& lookup, const CandidateSource& candidates = {},
                                double seconds = 0);
  // Whole runs between input() and output().
  RunTimes time(int runs);

  // A value of the graph after run(), as [n, h, w, c], when the plan keeps them. Waits for what is enqueued.
  std::vector<float> read(ValueId id);

  const Graph& graph() const { return graph_; }
  const Plan& plan() const { return plan_; }
  std::string plan_text() const;

 private:
  void choose_kernels(const TensorLookup& lookup, const KernelChooser& choose);
  void enqueue();
  void enqueue_step(std::size_t position, kernels::Stream stream, DeviceBytes next = {});  // next: to be fetched
  void enqueue_results(const Step& step, kernels::Stream stream);
  void* address(const View& view) const;  // of its first channel
  ConvPointers pointers_of(const Step& step) const;
  DeviceBytes weights_after(std::size_t position) const;  // of the next convolution
  ConvWeights weights_of(const Step& step, const TensorLookup& lookup) const;
  std::string kernel_name(std::size_t position) const;
  StepTime describe(std::size_t position) const;  // all but the time
  kernels::TensorView tensor(const View& view) const;

  Runtime& runtime_;
  std::vector<StreamHandle> streams_;
  Graph graph_;
  HeadSpec head_;
  NetworkOptions options_;
  Plan plan_;
  std::vector<bool> overlap_;                              // by step, or empty
  std::vector<std::unique_ptr<ConvKernel>> convolutions_;  // by step
  std::vector<Owned<CUevent_st>> events_;                  // by step; null unless it is awaited
  Owned<std::byte> memory_;                                // the arena, then input and output
  std::span<std::byte> input_, output_;
  Owned<CUgraphExec_st> captured_;
};

}  // namespace damoyolo::cuda
