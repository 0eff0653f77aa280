#include "engine/cuda/cudnn_descriptor.h"

#include <algorithm>

namespace damoyolo::cuda {

CudnnDescriptor::CudnnDescriptor(const CudnnFunctions& cudnn, cudnnBackendDescriptorType_t type) : cudnn_(&cudnn) {
  check(cudnn, cudnn.cudnnBackendCreateDescriptor(type, &descriptor_), "cudnnBackendCreateDescriptor");
}

CudnnDescriptor::~CudnnDescriptor() {
  if (descriptor_) cudnn_->cudnnBackendDestroyDescriptor(descriptor_);
}

CudnnDescriptor& CudnnDescriptor::set(cudnnBackendAttributeName_t name,
                                      std::span<const CudnnDescriptor* const> values) {
  std::vector<cudnnBackendDescriptor_t> handles;
  for (const CudnnDescriptor* value : values) handles.push_back(value->descriptor_);
  return set_raw(name, CUDNN_TYPE_BACKEND_DESCRIPTOR, handles.size(), handles.data());
}

CudnnDescriptor& CudnnDescriptor::finalize() {
  check(*cudnn_, cudnn_->cudnnBackendFinalize(descriptor_), "cudnnBackendFinalize");
  return *this;
}

bool CudnnDescriptor::finalize_if_supported() {
  const cudnnStatus_t status = cudnn_->cudnnBackendFinalize(descriptor_);
  if (CUDNN_STATUS_CATEGORY(status) == CUDNN_STATUS_NOT_SUPPORTED) return false;
  check(*cudnn_, status, "cudnnBackendFinalize");
  return true;
}

CudnnDescriptor CudnnDescriptor::get_descriptor(cudnnBackendAttributeName_t name,
                                                cudnnBackendDescriptorType_t type) const {
  CudnnDescriptor value(*cudnn_, type);
  get_raw(name, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &value.descriptor_);
  return value;
}

std::size_t CudnnDescriptor::count_descriptors(cudnnBackendAttributeName_t name) const {
  return get_raw(name, CUDNN_TYPE_BACKEND_DESCRIPTOR, 0, nullptr);
}

std::vector<CudnnDescriptor> CudnnDescriptor::get_descriptors(cudnnBackendAttributeName_t name,
                                                              cudnnBackendDescriptorType_t type,
                                                              std::size_t capacity) const {
  // cuDNN fills descriptors that the caller has made, and does not say for every attribute how many there will be.
  std::vector<CudnnDescriptor> values;
  std::vector<cudnnBackendDescriptor_t> handles;
  for (std::size_t i = 0; i < capacity; ++i) handles.push_back(values.emplace_back(*cudnn_, type).descriptor_);
  const std::size_t filled = get_raw(name, CUDNN_TYPE_BACKEND_DESCRIPTOR, capacity, handles.data());
  while (values.size() > filled) values.pop_back();
  return values;
}

CudnnDescriptor& CudnnDescriptor::set_raw(cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type,
                                          std::size_t count, const void* elements) {
  check(*cudnn_, cudnn_->cudnnBackendSetAttribute(descriptor_, name, type, static_cast<std::int64_t>(count), elements),
        "cudnnBackendSetAttribute");
  return *this;
}

std::size_t CudnnDescriptor::get_raw(cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type,
                                     std::size_t capacity, void* elements) const {
  std::int64_t count = 0;
  check(
      *cudnn_,
      cudnn_->cudnnBackendGetAttribute(descriptor_, name, type, static_cast<std::int64_t>(capacity), &count, elements),
      "cudnnBackendGetAttribute");
  return static_cast<std::size_t>(std::max<std::int64_t>(count, 0));
}

}  // namespace damoyolo::cuda
