// Choosing a plan's kernels by timing, and keeping the choices for the next process.
#pragma once

#include <cstddef>
#include <filesystem>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "engine/conv_weights.h"
#include "engine/cuda/kernel_choice.h"
#include "engine/cuda/plan_cache.h"
#include "engine/cuda/runtime.h"
#include "engine/cuda/time_shares.h"

namespace damoyolo::cuda {

// For one plan. The runtime, the stream and the source must outlive it. Not thread-safe.
class Autotuner {
 public:
  struct Plan {
    PlanKey key;
    std::ptrdiff_t choices = 0;  // that will be asked for, of convolutions and of pairs
    double seconds = 0;          // for all of them; each has an equal part of what is left
  };
  // Reads what an earlier process has stored in `folder`.
  Autotuner(Runtime& runtime, StreamHandle stream, const CandidateSource& source, std::filesystem::path folder,
            Plan plan);

  // The stored kernel where it still works; else the one that was taken for the same problem before; else the fastest
  // (measured_best), or predicted_best() when no time is left. Throws Error naming the node when there is none.
  std::unique_ptr<ConvKernel> choose(const std::string& node, const ConvProblem& problem, const ConvWeights& weights);

  // The same for a pair, where its two launches are one of the kernels to choose from, and the one when no time is
  // left: null then.
  std::unique_ptr<ConvKernel> choose(const ConvPair& pair);

  // Stores the choices if they are others than those that were read; what was read and not asked for stays. One that
  // was made when no time was left is not among them: it is for this process alone.
  void store() const;

 private:
  std::unique_ptr<ConvKernel> choose_among(const std::vector<ConvCandidate>& candidates, const std::string& node,
                                           const ConvProblem& problem, const ConvWeights& weights);

  Runtime& runtime_;
  StreamHandle stream_;
  const CandidateSource& source_;
  std::filesystem::path folder_;
  PlanKey key_;
  TimeShares shares_;
  KernelChoices known_, chosen_;
  std::vector<std::pair<ConvProblem, std::string>> found_;  // layers repeat
};

}  // namespace damoyolo::cuda
