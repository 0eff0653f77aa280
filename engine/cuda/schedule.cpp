#include "engine/cuda/schedule.h"

namespace damoyolo::cuda {

std::vector<Owned<CUevent_st>> make_events(const Plan& plan, Runtime& runtime) {
  std::vector<Owned<CUevent_st>> events(plan.steps.size());
  for (std::size_t i = 0; i < events.size(); ++i)
    if (plan.steps[i].awaited) events[i] = make_event(runtime);
  return events;
}

void enqueue_steps(const Plan& plan, Runtime& runtime, std::span<const StreamHandle> streams,
                   std::span<const Owned<CUevent_st>> events,
                   const std::function<void(std::size_t step, StreamHandle stream)>& enqueue) {
  for (std::size_t i = 0; i < plan.steps.size(); ++i) {
    const Step& step = plan.steps[i];
    const StreamHandle stream = streams[static_cast<std::size_t>(step.stream)];
    for (const int other : step.waits) runtime.wait(stream, events[static_cast<std::size_t>(other)].get());
    enqueue(i, stream);
    if (step.awaited) runtime.record(events[i].get(), stream);
  }
}

}  // namespace damoyolo::cuda
