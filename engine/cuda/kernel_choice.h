// From the candidates for a convolution to the kernel that is used.
#pragma once

#include <algorithm>
#include <array>
#include <functional>
#include <memory>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "engine/cuda/conv_timing.h"
#include "engine/cuda/convolution.h"
#include "engine/cuda/runtime.h"

namespace damoyolo::cuda {

using CandidateSource = std::function<std::vector<ConvCandidate>(const ConvProblem&)>;

// Remembers what `source` gave for every problem: asking libraries takes milliseconds, and layers repeat.
template <typename Source>
auto remembered(Source source) {
  struct Known {
    ConvProblem problem;
    std::invoke_result_t<const Source&, const ConvProblem&> answer;
  };
  return [source = std::move(source), known = std::make_shared<std::vector<Known>>()](const ConvProblem& problem) {
    const auto found = std::ranges::find(*known, problem, &Known::problem);
    return found != known->end() ? found->answer : known->emplace_back(Known{problem, source(problem)}).answer;
  };
}

// What `source` gives for the node's problem; its Error names the node.
std::vector<ConvCandidate> candidates_for(const std::string& node, const CandidateSource& source,
                                          const ConvProblem& problem);

// The best one by prediction that can be made here. When none can, throws Error naming the node, or OutOfDeviceMemory
// where memory is what was missing.
std::unique_ptr<ConvKernel> predicted_best(const std::string& node, const std::vector<ConvCandidate>& candidates,
                                           const ConvWeights& weights);

// The one of that name; null when there is none, or it cannot be made here any more.
std::unique_ptr<ConvKernel> named(const std::string& name, const std::vector<ConvCandidate>& candidates,
                                  const ConvWeights& weights);

// Two convolutions that one launch may compute, and the kernels that were chosen for each by itself.
struct ConvPair {
  std::string name;     // of both nodes
  ConvProblem problem;  // of both, as are the weights
  ConvWeights weights;
  std::array<ConvKernel*, 2> alone{};  // for first_of(problem) and second_of(problem)
};

// The name of a pair's two launches, beside those of the kernels that compute it in one.
constexpr const char* kApart = "apart";

// The two launches as a kernel for the pair, to be timed as the others are. It refers to those of the pair, which must
// outlive it.
ConvCandidate apart(const ConvPair& pair);

// The best one by prediction of those for the pair that should take less time than its two; null where there is none.
// Null also where either of the two is a library's: predictions of our own are not confirmed, and nothing that stands
// in a library's place is taken on their word.
std::unique_ptr<ConvKernel> predicted_pair(const ConvPair& pair, const CandidateSource& source);

// In the order in which they are timed while there is time: the best by prediction first, those to compile last.
std::vector<ConvCandidate> in_turn(std::vector<ConvCandidate> candidates);

// The one that takes the least time (time_candidates), of those whose turn comes before timing.deadline. Without
// timing when it is the only one or there is no time for any. What cannot be made or run is passed over; throws Error
// naming the node when nothing is left.
std::unique_ptr<ConvKernel> measured_best(Runtime& runtime, StreamHandle stream, const std::string& node,
                                          const ConvProblem& problem, const std::vector<ConvCandidate>& candidates,
                                          const ConvWeights& weights, const TimingOptions& timing);

}  // namespace damoyolo::cuda
