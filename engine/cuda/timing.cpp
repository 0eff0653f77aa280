#include "engine/cuda/timing.h"

#include <algorithm>
#include <limits>

namespace damoyolo::cuda {

double least_seconds(Runtime& runtime, StreamHandle stream, std::size_t runs,
                     const std::function<void(std::size_t run)>& enqueue) {
  constexpr int kRounds = 3;
  // Kernels and libraries load what they need when they first run, which a capture would not allow.
  enqueue(0);
  runtime.synchronize(stream);
  const Owned<CUgraphExec_st> captured = capture_graph(runtime, stream, [&] {
    for (std::size_t run = 0; run < runs; ++run) enqueue(run);
  });
  const Owned<CUevent_st> begin = make_event(runtime, true), end = make_event(runtime, true);
  runtime.launch(captured.get(), stream);  // so that the first round is like the others
  double least = std::numeric_limits<double>::infinity();
  for (int round = 0; round < kRounds; ++round) {
    runtime.record(begin.get(), stream);
    runtime.launch(captured.get(), stream);
    runtime.record(end.get(), stream);
    runtime.synchronize(end.get());
    least = std::min(least, runtime.seconds_between(begin.get(), end.get()) / static_cast<double>(runs));
  }
  return least;
}

}  // namespace damoyolo::cuda
