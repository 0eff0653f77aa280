#include "engine/cuda/schedule.h"

namespace damoyolo::cuda {

std::vector<Owned<CUevent_st>> make_events(const Plan& plan, Runtime& runtime) {
  std::vector<Owned<CUevent_st>> events(plan.steps.size());
  for (std::size_t i = 0; i < events.size(); ++i)
    if (plan.steps[i].awaited) events[i] = make_event(runtime);
  return events;
}

// A kernel that overlaps starts when all blocks of the one before it on its stream have called let_successors_start()
// or ended, and stands in wait_for_predecessors() until that one has ended and its writes are seen. This is as good as
// waiting at the start, for these reasons:
// - Every kernel of ours that touches what others read or write calls wait_for_predecessors() first, in each thread
//   that does so and in at least one of each block. So a kernel ends only after the one before it has, and whoever
//   waits for one waits for all before it: reading what two kernels back has written, and writing where two kernels
//   back has read, are as safe as between neighbours. The order that gives regions of the arena to new tensors is
//   still the order of the stream.
// - A library's kernel that is launched without overlap starts when all before it has ended, whether or not that
//   called let_successors_start(). After one that never calls it, ours starts when it ends.
// - An event that is recorded after a kernel stands for its end, so other streams see the same order.
// - What is read before waiting are weights alone. They were copied before the first step, which no stream overtakes:
//   each one's first step waits for another stream.
// A step that waits for another stream depends on more than the kernel before it, and the first one of a stream on no
// kernel at all (copies, memsets or another stream's work): both start when everything before them has ended. Inside a
// capture the overlap is an edge between two kernel nodes, which is what is left then.
std::vector<bool> overlapping_steps(const Plan& plan) {
  std::vector<bool> result, begun(static_cast<std::size_t>(plan.streams), false);
  for (const Step& step : plan.steps) {
    const auto stream = static_cast<std::size_t>(step.stream);
    result.push_back(begun[stream] && step.waits.empty());
    begun[stream] = true;
  }
  return result;
}

void enqueue_steps(const Plan& plan, Runtime& runtime, std::span<const StreamHandle> streams,
                   std::span<const Owned<CUevent_st>> events, const std::vector<bool>& overlap,
                   const std::function<void(std::size_t step, kernels::Stream stream)>& enqueue) {
  for (std::size_t i = 0; i < plan.steps.size(); ++i) {
    const Step& step = plan.steps[i];
    const StreamHandle stream = streams[static_cast<std::size_t>(step.stream)];
    for (const int other : step.waits) runtime.wait(stream, events[static_cast<std::size_t>(other)].get());
    enqueue(i, {stream, !overlap.empty() && overlap[i]});
    if (step.awaited) runtime.record(events[i].get(), stream);
  }
}

}  // namespace damoyolo::cuda
