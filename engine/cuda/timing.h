// How long work takes on a device, by the device's own clock.
#pragma once

#include <cstddef>
#include <functional>

#include "engine/cuda/runtime.h"

namespace damoyolo::cuda {

// Seconds of one of `runs` runs that follow each other on the stream, captured as one graph, so that no launch from
// the host stands between them: the least mean over a few rounds. enqueue(i) puts run i on the stream; it is called
// once more, before everything, for what a first run loads.
double least_seconds(Runtime& runtime, StreamHandle stream, std::size_t runs,
                     const std::function<void(std::size_t run)>& enqueue);

}  // namespace damoyolo::cuda
