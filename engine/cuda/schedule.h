// A plan's steps, put on its streams.
#pragma once

#include <functional>
#include <span>
#include <vector>

#include "engine/cuda/plan.h"
#include "engine/cuda/runtime.h"
#include "kernels/tensor.h"

namespace damoyolo::cuda {

// An event for each step that another stream waits for, null for the others.
std::vector<Owned<CUevent_st>> make_events(const Plan& plan, Runtime& runtime);

// By step: whether its first kernel may start before the one before it on the stream has ended (kernels::Stream).
std::vector<bool> overlapping_steps(const Plan& plan);

// Calls `enqueue` for every step in order, with the stream it goes to, and between them has streams wait for each
// other as the plan says. Everything begins after what is on the first stream, and is over when that has done it.
// overlap: by step, or empty when none may.
void enqueue_steps(const Plan& plan, Runtime& runtime, std::span<const StreamHandle> streams,
                   std::span<const Owned<CUevent_st>> events, const std::vector<bool>& overlap,
                   const std::function<void(std::size_t step, kernels::Stream stream)>& enqueue);

}  // namespace damoyolo::cuda
