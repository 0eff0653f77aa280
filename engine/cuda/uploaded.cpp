#include "engine/cuda/uploaded.h"

#include <cuda_runtime_api.h>

#include "engine/cuda/runtime.h"

namespace damoyolo::cuda {

Uploaded::Uploaded(std::span<const std::byte> bytes) {
  cudaError_t status = cudaMalloc(&data_, bytes.size());
  if (status == cudaSuccess) status = cudaMemcpy(data_, bytes.data(), bytes.size(), cudaMemcpyHostToDevice);
  if (status == cudaSuccess) return;
  cudaFree(data_);
  cudaGetLastError();  // the failure is reported here; later calls start afresh
  if (status == cudaErrorMemoryAllocation)
    throw OutOfDeviceMemory("the device has no memory for {} bytes of weights", bytes.size());
  throw Error("{} bytes of weights were not uploaded to the device: {}", bytes.size(), cudaGetErrorString(status));
}

Uploaded::~Uploaded() { cudaFree(data_); }

}  // namespace damoyolo::cuda
