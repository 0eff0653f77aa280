// Timing the candidates for a convolution on its real shape.
#pragma once

#include <chrono>
#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "engine/cuda/convolution.h"
#include "engine/cuda/runtime.h"

namespace damoyolo::cuda {

struct CandidateTime {
  std::string name;
  double seconds = 0;    // of one run, when it was timed
  std::string error;     // why it was not; empty when it was
  bool had_turn = true;  // before the deadline
};

// Runs follow each other as in a network, see least_seconds(). Weights, as in a network that fits, are in the
// second-level cache where they fit.
struct TimingOptions {
  // 0: every run has the same tensors, which then lie in the cache as far as they fit, like those that the step before
  // has just written. Otherwise runs take turns on as many sets of tensors as have this many bytes together: with
  // twice the size of the cache, each run finds its input in device memory.
  std::size_t rotated_bytes = 0;
  bool overlap = false;  // kernels::Stream::overlap
  // Candidates whose turn comes later are not timed.
  std::chrono::steady_clock::time_point deadline = std::chrono::steady_clock::time_point::max();
  // Called with each kernel before it is timed; the message of an Error that it throws becomes the candidate's.
  std::function<void(ConvKernel&)> check = [](ConvKernel&) {};
};

// One entry for each candidate, in their order. Seconds are the least mean over a few rounds, on random numbers in
// memory of its own. What cannot be made or run has an error; what has no memory of its own left is among that. Throws
// Error naming the kernel after which the device cannot be used any more.
// fastest: where not null, becomes the kernel that took the least time, or stays as it is when none was timed.
std::vector<CandidateTime> time_candidates(Runtime& runtime, StreamHandle stream, const ConvProblem& problem,
                                           const std::vector<ConvCandidate>& candidates, const ConvWeights& weights,
                                           const TimingOptions& options = {},
                                           std::unique_ptr<ConvKernel>* fastest = nullptr);

}  // namespace damoyolo::cuda
