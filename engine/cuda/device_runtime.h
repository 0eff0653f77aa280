// The real CUDA runtime, and the GPUs it sees.
#pragma once

#include <memory>

#include "engine/cuda/runtime.h"
#include "engine/device.h"

namespace damoyolo::cuda {

// Never throws: a machine without a driver, or with one that is too old, has no GPUs, and the list says why.
GpuList find_gpus();

// Makes the device current for the calling thread. Throws Error when it cannot be used.
std::unique_ptr<Runtime> open_runtime(int device);

}  // namespace damoyolo::cuda
