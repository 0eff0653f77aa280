// One descriptor of cuDNN's graph API: created, given attributes, made final, destroyed.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "engine/cuda/library.h"

namespace damoyolo::cuda {

// How the graph API names the type of an attribute's elements.
template <typename T>
constexpr cudnnBackendAttributeType_t kCudnnTypeOf = T::no_such_type;
template <>
inline constexpr auto kCudnnTypeOf<bool> = CUDNN_TYPE_BOOLEAN;
template <>
inline constexpr auto kCudnnTypeOf<char> = CUDNN_TYPE_CHAR;
template <>
inline constexpr auto kCudnnTypeOf<float> = CUDNN_TYPE_FLOAT;
template <>
inline constexpr auto kCudnnTypeOf<std::int64_t> = CUDNN_TYPE_INT64;
template <>
inline constexpr auto kCudnnTypeOf<void*> = CUDNN_TYPE_VOID_PTR;
template <>
inline constexpr auto kCudnnTypeOf<cudnnHandle_t> = CUDNN_TYPE_HANDLE;
template <>
inline constexpr auto kCudnnTypeOf<cudnnDataType_t> = CUDNN_TYPE_DATA_TYPE;
template <>
inline constexpr auto kCudnnTypeOf<cudnnConvolutionMode_t> = CUDNN_TYPE_CONVOLUTION_MODE;
template <>
inline constexpr auto kCudnnTypeOf<cudnnPointwiseMode_t> = CUDNN_TYPE_POINTWISE_MODE;
template <>
inline constexpr auto kCudnnTypeOf<cudnnBackendHeurMode_t> = CUDNN_TYPE_HEUR_MODE;
template <>
inline constexpr auto kCudnnTypeOf<cudnnBackendKnobType_t> = CUDNN_TYPE_KNOB_TYPE;
template <>
inline constexpr auto kCudnnTypeOf<cudnnBackendNumericalNote_t> = CUDNN_TYPE_NUMERICAL_NOTE;
template <>
inline constexpr auto kCudnnTypeOf<cudnnBackendBehaviorNote_t> = CUDNN_TYPE_BEHAVIOR_NOTE;

// What the headers of cuDNN 9.0 do not name. Since 9.2: how much workspace a configuration will take. Since 9.8: a
// device that is described and not opened, and where heuristics and plans take it.
inline constexpr auto kCudnnConfigWorkspace = static_cast<cudnnBackendAttributeName_t>(303);
inline constexpr auto kCudnnDeviceDescriptor = static_cast<cudnnBackendDescriptorType_t>(38);
inline constexpr auto kCudnnDeviceText = static_cast<cudnnBackendAttributeName_t>(2702);
inline constexpr auto kCudnnHeuristicDevice = static_cast<cudnnBackendAttributeName_t>(204);
inline constexpr auto kCudnnPlanDevice = static_cast<cudnnBackendAttributeName_t>(407);

// The functions must outlive it. All members throw Error that names the call and cuDNN's reason.
class CudnnDescriptor {
 public:
  CudnnDescriptor(const CudnnFunctions& cudnn, cudnnBackendDescriptorType_t type);
  CudnnDescriptor(CudnnDescriptor&& other) noexcept
      : cudnn_(other.cudnn_), descriptor_(std::exchange(other.descriptor_, nullptr)) {}
  CudnnDescriptor& operator=(CudnnDescriptor&& other) noexcept {
    std::swap(cudnn_, other.cudnn_);
    std::swap(descriptor_, other.descriptor_);
    return *this;
  }
  ~CudnnDescriptor();

  template <typename T>
  CudnnDescriptor& set(cudnnBackendAttributeName_t name, T value) {
    return set_raw(name, kCudnnTypeOf<T>, 1, &value);
  }
  template <typename T, std::size_t N>
  CudnnDescriptor& set(cudnnBackendAttributeName_t name, const std::array<T, N>& values) {
    return set_raw(name, kCudnnTypeOf<T>, N, values.data());
  }
  template <typename T>
  CudnnDescriptor& set(cudnnBackendAttributeName_t name, const std::vector<T>& values) {
    return set_raw(name, kCudnnTypeOf<T>, values.size(), values.data());
  }
  CudnnDescriptor& set(cudnnBackendAttributeName_t name, const CudnnDescriptor& value) {
    return set_raw(name, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &value.descriptor_);
  }
  CudnnDescriptor& set(cudnnBackendAttributeName_t name, std::span<const CudnnDescriptor* const> values);

  CudnnDescriptor& finalize();
  // False when cuDNN has no implementation for what was described.
  bool finalize_if_supported();

  template <typename T>
  T get(cudnnBackendAttributeName_t name) const {
    T value{};
    get_raw(name, kCudnnTypeOf<T>, 1, &value);
    return value;
  }
  // At most `capacity` elements.
  template <typename T>
  std::vector<T> get_all(cudnnBackendAttributeName_t name, std::size_t capacity) const {
    std::vector<T> values(capacity);
    values.resize(std::min(capacity, get_raw(name, kCudnnTypeOf<T>, capacity, values.data())));
    return values;
  }
  CudnnDescriptor get_descriptor(cudnnBackendAttributeName_t name, cudnnBackendDescriptorType_t type) const;
  // How many there are; only for attributes of which cuDNN says so.
  std::size_t count_descriptors(cudnnBackendAttributeName_t name) const;
  std::vector<CudnnDescriptor> get_descriptors(cudnnBackendAttributeName_t name, cudnnBackendDescriptorType_t type,
                                               std::size_t capacity) const;

  cudnnBackendDescriptor_t get() const { return descriptor_; }

 private:
  CudnnDescriptor& set_raw(cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type, std::size_t count,
                           const void* elements);
  // Returns what cuDNN counts: how many elements it wrote, or how many there are, also when fewer fit.
  std::size_t get_raw(cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type, std::size_t capacity,
                      void* elements) const;

  const CudnnFunctions* cudnn_;
  cudnnBackendDescriptor_t descriptor_ = nullptr;
};

}  // namespace damoyolo::cuda
