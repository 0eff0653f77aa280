// The runtime's functions that need no running kernel, and arithmetic that the host has not.
#include "cuda_runtime.h"

#include <cmath>
#include <map>
#include <new>

#include "cuda_fp16.h"

cudaError_t cudaMalloc(void** memory, std::size_t bytes) {
  if (simt::capturing) return cudaErrorStreamCaptureUnsupported;
  *memory = ::operator new (bytes, std::align_val_t{256});
  return cudaSuccess;
}

cudaError_t cudaFree(void* memory) {
  if (simt::capturing) return cudaErrorStreamCaptureUnsupported;
  ::operator delete (memory, std::align_val_t{256});
  return cudaSuccess;
}

cudaError_t cudaMemcpy(void* to, const void* from, std::size_t bytes, cudaMemcpyKind) {
  if (simt::capturing) return cudaErrorStreamCaptureUnsupported;
  if (bytes > 0) std::memcpy(to, from, bytes);
  return cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes, cudaMemcpyKind, cudaStream_t stream) {
  simt::after_kernel.erase(stream);
  if (bytes > 0) std::memcpy(to, from, bytes);
  return cudaSuccess;
}

cudaError_t cudaMemsetAsync(void* memory, int value, std::size_t bytes, cudaStream_t stream) {
  simt::after_kernel.erase(stream);
  if (bytes > 0) std::memset(memory, value, bytes);
  return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t) {
  return simt::capturing ? cudaErrorStreamCaptureUnsupported : cudaSuccess;
}

cudaError_t cudaDeviceSynchronize() { return simt::capturing ? cudaErrorStreamCaptureUnsupported : cudaSuccess; }

cudaError_t cudaGetDeviceCount(int* count) {
  *count = 1;
  return cudaSuccess;
}

cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
  constexpr int kMultiprocessors = 2, kMajor = 9, kMinor = 0;
  *value = attribute == cudaDevAttrMultiProcessorCount      ? kMultiprocessors
           : attribute == cudaDevAttrComputeCapabilityMajor ? kMajor
                                                            : kMinor;
  return cudaSuccess;
}

// Rounds to nearest, ties to even, by letting float arithmetic round at the position of the result's last bit.
__half __float2half_rn(float value) {
  const auto sign = static_cast<std::uint16_t>(std::signbit(value) ? 0x8000 : 0);
  const auto half = [&](unsigned bits) { return __half{static_cast<std::uint16_t>(sign | bits)}; };
  const float magnitude = std::fabs(value);
  if (std::isnan(value)) return half(0x7e00);
  if (magnitude >= 65520.0f) return half(0x7c00);
  constexpr float kSmallestNormal = 0x1p-14f;
  if (magnitude < kSmallestNormal) return half(static_cast<unsigned>(std::nearbyint(magnitude * 0x1p24f)));
  int exponent = 0;
  const float fraction = std::frexp(magnitude, &exponent);                             // in [0.5, 1)
  const auto significand = static_cast<unsigned>(std::nearbyint(fraction * 2048.0f));  // in [1024, 2048]
  return half((static_cast<unsigned>(exponent + 13) << 10) + significand);
}

namespace {
constexpr int kSharedWithoutAsking = 48 * 1024;
std::map<const void*, cudaFuncAttributes> function_attributes;  // of kernels for which something was set
}  // namespace

cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* attributes, const void* kernel) {
  const auto found = function_attributes.find(kernel);
  *attributes = found == function_attributes.end()
                    ? cudaFuncAttributes{90, kSharedWithoutAsking, cudaSharedmemCarveoutDefault}
                    : found->second;
  return cudaSuccess;
}

cudaError_t cudaFuncSetAttribute(const void* kernel, cudaFuncAttribute attribute, int value) {
  cudaFuncAttributes attributes;
  cudaFuncGetAttributes(&attributes, kernel);
  if (attribute == cudaFuncAttributePreferredSharedMemoryCarveout) {
    if (value < cudaSharedmemCarveoutDefault || value > cudaSharedmemCarveoutMaxShared) return cudaErrorInvalidValue;
    attributes.preferredShmemCarveout = value;
  } else {
    if (value < 0 || static_cast<std::size_t>(value) > simt::kMaxSharedBytes) return cudaErrorInvalidValue;
    attributes.maxDynamicSharedSizeBytes = value;
  }
  function_attributes[kernel] = attributes;
  return cudaSuccess;
}
