#include "engine/cuda/timing.h"

#include <algorithm>
#include <limits>
#include <vector>

namespace damoyolo::cuda {

double least_seconds(Runtime& runtime, StreamHandle stream, std::size_t runs,
                     const std::function<void(std::size_t run)>& enqueue) {
  constexpr std::size_t kRounds = 3;
  // Kernels and libraries load what they need when they first run, which a capture would not allow.
  enqueue(0);
  runtime.synchronize(stream);
  const Owned<CUgraphExec_st> captured = capture_graph(runtime, stream, [&] {
    for (std::size_t run = 0; run < runs; ++run) enqueue(run);
  });
  // Each round stands in line behind another, so that it begins when that ends and not when the processor has launched
  // it; the first one is not timed.
  std::vector<Owned<CUevent_st>> ends;
  for (std::size_t round = 0; round <= kRounds; ++round) ends.push_back(make_event(runtime, true));
  for (const auto& end : ends) {
    runtime.launch(captured.get(), stream);
    runtime.record(end.get(), stream);
  }
  runtime.synchronize(ends.back().get());
  double least = std::numeric_limits<double>::infinity();
  for (std::size_t round = 1; round <= kRounds; ++round)
    least = std::min(least, runtime.seconds_between(ends[round - 1].get(), ends[round].get()));
  return least / static_cast<double>(runs);
}

}  // namespace damoyolo::cuda
