#include "engine/cuda/autotune.h"

#include <algorithm>

namespace damoyolo::cuda {

Autotuner::Autotuner(Runtime& runtime, StreamHandle stream, const CandidateSource& source,
                     std::filesystem::path folder, Plan plan)
    : runtime_(runtime),
      stream_(stream),
      source_(source),
      folder_(std::move(folder)),
      key_(std::move(plan.key)),
      shares_(plan.seconds, plan.choices),
      known_(load_choices(folder_, key_).value_or(KernelChoices{})) {}

std::unique_ptr<ConvKernel> Autotuner::choose(const std::string& node, const ConvProblem& problem,
                                              const ConvWeights& weights) {
  return choose_among(candidates_for(node, source_, problem), node, problem, weights);
}

std::unique_ptr<ConvKernel> Autotuner::choose(const ConvPair& pair) {
  std::vector<ConvCandidate> candidates = candidates_for(pair.name, source_, pair.problem);
  if (candidates.empty()) return nullptr;
  candidates.insert(candidates.begin(), apart(pair));
  auto kernel = choose_among(candidates, pair.name, pair.problem, pair.weights);
  return kernel->name() == kApart ? nullptr : std::move(kernel);
}

std::unique_ptr<ConvKernel> Autotuner::choose_among(const std::vector<ConvCandidate>& candidates,
                                                    const std::string& node, const ConvProblem& problem,
                                                    const ConvWeights& weights) {
  const auto stored = known_.find(node);
  const auto same = std::ranges::find(found_, problem, &std::pair<ConvProblem, std::string>::first);
  auto kernel = stored == known_.end() ? nullptr : named(stored->second, candidates, weights);
  if (kernel == nullptr && same != found_.end()) kernel = named(same->second, candidates, weights);
  TimingOptions timing;
  timing.overlap = key_.overlap;
  timing.deadline = shares_.next_deadline();
  if (kernel == nullptr) {
    if (timing.deadline <= TimeShares::Clock::now()) return predicted_best(node, candidates, weights);
    kernel = measured_best(runtime_, stream_, node, problem, candidates, weights, timing);
  }
  chosen_[node] = kernel->name();
  found_.emplace_back(problem, kernel->name());
  return kernel;
}

void Autotuner::store() const {
  KernelChoices all = chosen_;
  all.insert(known_.begin(), known_.end());
  if (all != known_) store_choices(folder_, key_, all);
}

}  // namespace damoyolo::cuda
