// Storage types and arithmetic in fp32: what a kernel loads becomes float, and becomes the storage type again when
// stored, rounded to nearest even.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include "engine/core/activation.h"
#include "kernels/launch.h"

namespace damoyolo::kernels {

__device__ __forceinline__ float to_float(float value) { return value; }
__device__ __forceinline__ float to_float(__half value) { return __half2float(value); }
__device__ __forceinline__ float to_float(__nv_bfloat16 value) { return __bfloat162float(value); }

template <typename T>
__device__ __forceinline__ T from_float(float value);
template <>
__device__ __forceinline__ float from_float<float>(float value) {
  return value;
}
template <>
__device__ __forceinline__ __half from_float<__half>(float value) {
  return __float2half_rn(value);
}
template <>
__device__ __forceinline__ __nv_bfloat16 from_float<__nv_bfloat16>(float value) {
  return __float2bfloat16_rn(value);
}

__device__ __forceinline__ float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }
__device__ __forceinline__ float silu(float x) { return x * sigmoid(x); }

// Decides once for all of them.
template <int N>
__device__ __forceinline__ void activate(float (&values)[N], Activation act) {
  switch (act) {
    case Activation::None: break;
    case Activation::Relu:
#pragma unroll
      for (float& value : values) value = fmaxf(value, 0.0f);
      break;
    case Activation::Silu:
#pragma unroll
      for (float& value : values) value = silu(value);
      break;
  }
}

// The lanes of a warp. CUDA's warpSize is no constant to the compiler: it divides by it.
constexpr int kLanes = 32;

// The channels one thread works on: as many as fit into 16 bytes of T.
template <typename T>
constexpr int kGroup = 16 / static_cast<int>(sizeof(T));

// The dynamic shared memory of the block.
template <typename T>
__device__ __forceinline__ T* dynamic_shared() {
#ifdef __CUDACC__
  extern __shared__ __align__(128) unsigned char dynamic_shared_memory[];
  return reinterpret_cast<T*>(dynamic_shared_memory);
#else
  return static_cast<T*>(simt::dynamic_shared());
#endif
}

// 16 bytes that move in one instruction.
template <typename T>
struct alignas(16) Packet {
  T values[kGroup<T>];
};

// Reads `count` (at most N) consecutive elements; the rest of `to` becomes 0. `aligned`: `from` is a multiple of
// 16 bytes.
template <int N, typename T>
__device__ __forceinline__ void load(const T* from, int count, bool aligned, float (&to)[N]) {
  if constexpr (N % kGroup<T> == 0) {
    if (aligned && count >= N) {
#pragma unroll
      for (int i = 0; i < N; i += kGroup<T>) {
        const Packet<T> packet = *reinterpret_cast<const Packet<T>*>(from + i);
#pragma unroll
        for (int k = 0; k < kGroup<T>; ++k) to[i + k] = to_float(packet.values[k]);
      }
      return;
    }
  }
#pragma unroll
  for (int i = 0; i < N; ++i) to[i] = i < count ? to_float(from[i]) : 0.0f;
}

// Writes the first `count` (at most N) of `from`.
template <int N, typename T>
__device__ __forceinline__ void store(T* to, int count, bool aligned, const float (&from)[N]) {
  if constexpr (N % kGroup<T> == 0) {
    if (aligned && count >= N) {
#pragma unroll
      for (int i = 0; i < N; i += kGroup<T>) {
        Packet<T> packet;
#pragma unroll
        for (int k = 0; k < kGroup<T>; ++k) packet.values[k] = from_float<T>(from[i + k]);
        *reinterpret_cast<Packet<T>*>(to + i) = packet;
      }
      return;
    }
  }
#pragma unroll
  for (int i = 0; i < N; ++i)
    if (i < count) to[i] = from_float<T>(from[i]);
}

inline bool is_aligned(const void* pointer) { return reinterpret_cast<std::uintptr_t>(pointer) % 16 == 0; }

// A TensorView as kernels see it.
template <typename T>
struct Slice {
  T* data = nullptr;  // the first channel of the first pixel
  int n = 0, h = 0, w = 0, c = 0;
  int pixel_stride = 0;
  bool aligned = false;  // every pixel's first channel is

  __device__ __forceinline__ T* pixel(int n, int y, int x) const {
    return data + (static_cast<std::size_t>(n * h + y) * w + x) * pixel_stride;
  }
};

template <typename T>
Slice<T> slice(const TensorView& view) {
  if (view.data == nullptr) return {};
  T* data = static_cast<T*>(view.data) + view.channel_offset;
  return {
      data, view.n, view.h, view.w, view.c, view.pixel_stride, is_aligned(data) && view.pixel_stride % kGroup<T> == 0};
}

// Calls function(T{}) with the type that `type` names.
template <typename Function>
void with_storage_type(DType type, const char* kernel, Function function) {
  switch (type) {
    case DType::F32: return function(float{});
    case DType::F16: return function(__half{});
    case DType::BF16: return function(__nv_bfloat16{});
    default: require(false, kernel, "elements of type F32, F16 or BF16");
  }
}

}  // namespace damoyolo::kernels
