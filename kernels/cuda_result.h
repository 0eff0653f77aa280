// What CUDA's runtime answers, as the library's errors. For host code alone.
#pragma once

#include <cuda_runtime_api.h>

#include <string>
#include <utility>

#include "engine/core/error.h"
#include "engine/core/out_of_device_memory.h"

namespace damoyolo {

// Unless the call succeeded, throws Error("`failure`: the runtime's reason"), OutOfDeviceMemory where that is one.
template <typename... Args>
void check_cuda(cudaError_t result, fmt::format_string<Args...> failure, Args&&... args) {
  if (result == cudaSuccess) return;
  cudaGetLastError();  // or the next call would report it again
  const std::string text = fmt::format(failure, std::forward<Args>(args)...);
  if (result == cudaErrorMemoryAllocation) throw OutOfDeviceMemory("{}: {}", text, cudaGetErrorString(result));
  throw Error("{}: {}", text, cudaGetErrorString(result));
}

}  // namespace damoyolo
