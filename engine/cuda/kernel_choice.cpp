#include "engine/cuda/kernel_choice.h"

#include <algorithm>
#include <exception>
#include <utility>

#include "engine/core/error.h"
#include "engine/cuda/conv_split.h"

namespace damoyolo::cuda {
namespace {

[[noreturn]] void none_works(const std::string& node, const std::string& reason) {
  throw Error("no kernel can compute the convolution {}: {}", node, reason.empty() ? "there is no candidate" : reason);
}

// Null, and the reason, when it cannot be made here.
std::unique_ptr<ConvKernel> make_if_possible(const ConvCandidate& candidate, const ConvWeights& weights,
                                             std::string& reason) {
  try {
    return candidate.make(weights);
  } catch (const OutOfDeviceMemory&) {
    throw;
  } catch (const Error& error) {
    reason = error.what();
    return nullptr;
  }
}

class TwoKernels : public ConvKernel {
 public:
  explicit TwoKernels(const ConvPair& pair) : first_(*pair.alone[0]), second_(*pair.alone[1]) {
    if (pair.problem.keep) return;
    Shape middle = pair.problem.out;
    middle.c = pair.problem.out_pixel_stride;
    middle_bytes_ = workspace_bytes_of(middle, pair.problem.out_type);
  }

  std::string name() const override { return kApart; }
  std::size_t workspace_bytes() const override {
    return middle_bytes_ + std::max(first_.workspace_bytes(), second_.workspace_bytes());
  }
  void run(const ConvPointers& pointers, kernels::Stream stream) override {
    void* const middle = middle_bytes_ == 0 ? pointers.out : pointers.workspace;
    void* const workspace = static_cast<std::byte*>(pointers.workspace) + middle_bytes_;
    first_.run({pointers.in, middle, pointers.residual, workspace}, stream);
    second_.run({middle, pointers.then_out, nullptr, workspace, pointers.next}, stream);
  }

 private:
  ConvKernel &first_, &second_;
  std::size_t middle_bytes_ = 0;  // at the start of the workspace, where the output is not kept
};

}  // namespace

std::vector<ConvCandidate> candidates_for(const std::string& node, const CandidateSource& source,
                                          const ConvProblem& problem) {
  try {
    return source(problem);
  } catch (const OutOfDeviceMemory&) {
    throw;
  } catch (const Error& error) {
    none_works(node, error.what());
  }
}

std::unique_ptr<ConvKernel> predicted_best(const std::string& node, const std::vector<ConvCandidate>& candidates,
                                           const ConvWeights& weights) {
  std::string reason;
  std::exception_ptr no_memory;
  for (const ConvCandidate& candidate : candidates) {
    try {
      if (auto kernel = make_if_possible(candidate, weights, reason)) return kernel;
    } catch (const OutOfDeviceMemory&) {  // of a library for itself, perhaps: others may need less
      no_memory = std::current_exception();
    }
  }
  if (no_memory) std::rethrow_exception(no_memory);
  none_works(node, reason);
}

std::unique_ptr<ConvKernel> named(const std::string& name, const std::vector<ConvCandidate>& candidates,
                                  const ConvWeights& weights) {
  const auto found = std::ranges::find(candidates, name, &ConvCandidate::name);
  std::string reason;
  return found != candidates.end() ? make_if_possible(*found, weights, reason) : nullptr;
}

ConvCandidate apart(const ConvPair& pair) {
  return {kApart, 0, [&pair](const ConvWeights&) { return std::make_unique<TwoKernels>(pair); }};
}

std::unique_ptr<ConvKernel> predicted_pair(const ConvPair& pair, const CandidateSource& source) {
  const std::array<ConvProblem, 2> problems{first_of(pair.problem), second_of(pair.problem)};
  double seconds = 0;  // of the two
  for (std::size_t i = 0; i < problems.size(); ++i) {
    const std::string name = pair.alone[i]->name();
    if (!name.starts_with("own:")) return nullptr;
    const std::vector<ConvCandidate> candidates = candidates_for(pair.name, source, problems[i]);
    const auto found = std::ranges::find(candidates, name, &ConvCandidate::name);
    if (found == candidates.end()) return nullptr;
    seconds += found->predicted_seconds;
  }
  std::string reason;
  for (const ConvCandidate& candidate : candidates_for(pair.name, source, pair.problem))
    if (candidate.predicted_seconds < seconds)
      if (auto kernel = make_if_possible(candidate, pair.weights, reason)) return kernel;
  return nullptr;
}

std::vector<ConvCandidate> in_turn(std::vector<ConvCandidate> candidates) {
  std::ranges::stable_sort(candidates, {}, turn_of);
  return candidates;
}

std::unique_ptr<ConvKernel> measured_best(Runtime& runtime, StreamHandle stream, const std::string& node,
                                          const ConvProblem& problem, const std::vector<ConvCandidate>& candidates,
                                          const ConvWeights& weights, const TimingOptions& timing) {
  if (candidates.size() == 1) return predicted_best(node, candidates, weights);
  std::unique_ptr<ConvKernel> best;
  time_candidates(runtime, stream, problem, in_turn(candidates), weights, timing, &best);
  return best != nullptr ? std::move(best) : predicted_best(node, candidates, weights);
}

}  // namespace damoyolo::cuda
