#include "engine/cuda/kernel_choice.h"

#include <algorithm>
#include <exception>
#include <utility>

#include "engine/core/error.h"

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

std::vector<ConvCandidate> in_turn(std::vector<ConvCandidate> candidates) {
  std::ranges::stable_sort(candidates, {}, turn_of);
  return candidates;
}

std::unique_ptr<ConvKernel> measured_best(Runtime& runtime, StreamHandle stream, const std::string& node,
                                          const ConvProblem& problem, const std::vector<ConvCandidate>& candidates,
                                          const ConvWeights& weights, std::chrono::steady_clock::time_point deadline) {
  if (candidates.size() == 1) return predicted_best(node, candidates, weights);
  TimingOptions timing;
  timing.deadline = deadline;
  std::unique_ptr<ConvKernel> best;
  time_candidates(runtime, stream, problem, in_turn(candidates), weights, timing, &best);
  return best != nullptr ? std::move(best) : predicted_best(node, candidates, weights);
}

}  // namespace damoyolo::cuda
