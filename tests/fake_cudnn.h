// Stands in for cuDNN's graph API in tests: it records descriptors and their attributes and offers the engines that a
// test names. Like cuDNN, it refuses attributes of finished descriptors and those made from unfinished ones.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <deque>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "engine/cuda/cudnn_descriptor.h"

namespace damoyolo::cuda::test {

struct FakeEngine {
  std::int64_t index = 0;
  std::vector<cudnnBackendNumericalNote_t> numerical;
  std::vector<cudnnBackendBehaviorNote_t> behaviour;
  std::vector<std::pair<cudnnBackendKnobType_t, std::int64_t>> knobs;
  std::int64_t workspace_bytes = 0;
};

struct FakeDescriptor {
  cudnnBackendDescriptorType_t type{};
  bool finished = false, destroyed = false;
  std::map<cudnnBackendAttributeName_t, std::vector<std::byte>> attributes;

  template <typename T>
  void put(cudnnBackendAttributeName_t name, const std::vector<T>& values) {
    auto& bytes = attributes[name];
    bytes.resize(values.size() * sizeof(T));
    if (!values.empty()) std::memcpy(bytes.data(), values.data(), bytes.size());
  }
  template <typename T>
  std::vector<T> all(cudnnBackendAttributeName_t name) const {
    const auto& bytes = attributes.at(name);
    std::vector<T> values(bytes.size() / sizeof(T));
    std::memcpy(values.data(), bytes.data(), bytes.size());
    return values;
  }
  template <typename T = std::int64_t>
  T one(cudnnBackendAttributeName_t name) const {
    T value{};
    std::memcpy(&value, attributes.at(name).data(), sizeof value);
    return value;
  }
  const FakeDescriptor& child(cudnnBackendAttributeName_t name, std::size_t index = 0) const {
    return *static_cast<const FakeDescriptor*>(all<void*>(name).at(index));
  }
};

// One at a time, since cuDNN's functions carry no state of their own.
class FakeCudnn {
 public:
  FakeCudnn() {
    current = this;
    library = std::make_unique<Cudnn>();
    CudnnFunctions& f = library->functions;
    f.cudnnGetVersion = []() -> std::size_t { return current->version; };
    f.cudnnGetErrorString = [](cudnnStatus_t) { return "fake status"; };
    f.cudnnGetLastErrorString = [](char* message, std::size_t size) {
      std::strncpy(message, "fake reason", size - 1);
    };
    f.cudnnBackendCreateDescriptor = [](cudnnBackendDescriptorType_t type, cudnnBackendDescriptor_t* descriptor) {
      *descriptor = &current->made.emplace_back(FakeDescriptor{type, false, false, {}});
      return CUDNN_STATUS_SUCCESS;
    };
    f.cudnnBackendDestroyDescriptor = [](cudnnBackendDescriptor_t descriptor) {
      static_cast<FakeDescriptor*>(descriptor)->destroyed = true;
      return CUDNN_STATUS_SUCCESS;
    };
    f.cudnnBackendSetAttribute = [](cudnnBackendDescriptor_t descriptor, cudnnBackendAttributeName_t name,
                                    cudnnBackendAttributeType_t type, std::int64_t count, const void* elements) {
      return current->set(*static_cast<FakeDescriptor*>(descriptor), name, type, count, elements);
    };
    f.cudnnBackendGetAttribute = [](cudnnBackendDescriptor_t descriptor, cudnnBackendAttributeName_t name,
                                    cudnnBackendAttributeType_t type, std::int64_t capacity, std::int64_t* count,
                                    void* elements) {
      return current->get(*static_cast<FakeDescriptor*>(descriptor), name, type, capacity, count, elements);
    };
    f.cudnnBackendFinalize = [](cudnnBackendDescriptor_t descriptor) {
      return current->finish(*static_cast<FakeDescriptor*>(descriptor));
    };
  }
  FakeCudnn(const FakeCudnn&) = delete;
  FakeCudnn& operator=(const FakeCudnn&) = delete;
  ~FakeCudnn() { current = nullptr; }

  std::size_t alive() const {
    return static_cast<std::size_t>(std::ranges::count(made, false, &FakeDescriptor::destroyed));
  }

  std::unique_ptr<Cudnn> library;
  std::deque<FakeDescriptor> made;
  std::size_t version = 91900;
  std::vector<FakeEngine> proposals, proposals_b, fallbacks;  // of the heuristics
  cudnnStatus_t graph_status = CUDNN_STATUS_SUCCESS;          // of finishing an operation graph

 private:
  static std::size_t size_of(cudnnBackendAttributeType_t type) {
    switch (type) {
      case CUDNN_TYPE_BOOLEAN: return sizeof(bool);
      case CUDNN_TYPE_INT64:
      case CUDNN_TYPE_VOID_PTR:
      case CUDNN_TYPE_HANDLE:
      case CUDNN_TYPE_BACKEND_DESCRIPTOR: return 8;
      default: return 4;  // floats and enumerators
    }
  }

  cudnnStatus_t set(FakeDescriptor& to, cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type,
                    std::int64_t count, const void* elements) {
    if (to.finished) return CUDNN_STATUS_BAD_PARAM;
    const auto* bytes = static_cast<const std::byte*>(elements);
    to.attributes[name].assign(bytes, bytes + static_cast<std::size_t>(count) * size_of(type));
    if (type == CUDNN_TYPE_BACKEND_DESCRIPTOR)
      for (void* part : to.all<void*>(name))
        if (!static_cast<FakeDescriptor*>(part)->finished) return CUDNN_STATUS_BAD_PARAM_NOT_FINALIZED;
    return CUDNN_STATUS_SUCCESS;
  }

  // Descriptors are filled in place, as cuDNN does.
  cudnnStatus_t get(FakeDescriptor& from, cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type,
                    std::int64_t capacity, std::int64_t* count, void* elements) {
    const auto room = static_cast<std::size_t>(capacity);
    if (name == kCudnnConfigWorkspace && version < 90200) return CUDNN_STATUS_BAD_PARAM;
    if (type == CUDNN_TYPE_BACKEND_DESCRIPTOR) {
      const std::vector<FakeDescriptor> parts = parts_of(from, name);
      const std::size_t filled = std::min(room, parts.size());
      for (std::size_t i = 0; i < filled; ++i) *static_cast<FakeDescriptor**>(elements)[i] = parts[i];
      *count = static_cast<std::int64_t>(parts.size());  // of all, also when fewer fit
      return CUDNN_STATUS_SUCCESS;
    }
    const auto& bytes = from.attributes.at(name);
    const std::size_t filled = std::min(room, bytes.size() / size_of(type));
    if (filled > 0) std::memcpy(elements, bytes.data(), filled * size_of(type));
    *count = static_cast<std::int64_t>(filled);
    return CUDNN_STATUS_SUCCESS;
  }

  std::vector<FakeDescriptor> parts_of(const FakeDescriptor& from, cudnnBackendAttributeName_t name) const {
    std::vector<FakeDescriptor> parts;
    const auto part = [&](cudnnBackendDescriptorType_t type) -> FakeDescriptor& {
      return parts.emplace_back(FakeDescriptor{type, true, false, {}});
    };
    if (name == CUDNN_ATTR_ENGINEHEUR_RESULTS) {
      const auto mode = from.one<cudnnBackendHeurMode_t>(CUDNN_ATTR_ENGINEHEUR_MODE);
      for (const FakeEngine& engine : mode == CUDNN_HEUR_MODE_A   ? proposals
                                      : mode == CUDNN_HEUR_MODE_B ? proposals_b
                                                                  : fallbacks) {
        FakeDescriptor& config = part(CUDNN_BACKEND_ENGINECFG_DESCRIPTOR);
        config.put(kCudnnConfigWorkspace, std::vector{engine.workspace_bytes});
        config.put(CUDNN_ATTR_ENGINECFG_ENGINE, std::vector{&engine});
      }
      return parts;
    }
    const auto& engine = *from.one<const FakeEngine*>(CUDNN_ATTR_ENGINECFG_ENGINE);
    if (name == CUDNN_ATTR_ENGINECFG_ENGINE) {
      FakeDescriptor& described = part(CUDNN_BACKEND_ENGINE_DESCRIPTOR);
      described.put(CUDNN_ATTR_ENGINE_GLOBAL_INDEX, std::vector{engine.index});
      described.put(CUDNN_ATTR_ENGINE_NUMERICAL_NOTE, engine.numerical);
      described.put(CUDNN_ATTR_ENGINE_BEHAVIOR_NOTE, engine.behaviour);
    } else {
      for (const auto& [type, value] : engine.knobs) {
        FakeDescriptor& knob = part(CUDNN_BACKEND_KNOB_CHOICE_DESCRIPTOR);
        knob.put(CUDNN_ATTR_KNOB_CHOICE_KNOB_TYPE, std::vector{type});
        knob.put(CUDNN_ATTR_KNOB_CHOICE_KNOB_VALUE, std::vector{value});
      }
    }
    return parts;
  }

  cudnnStatus_t finish(FakeDescriptor& descriptor) {
    if (descriptor.type == CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR && graph_status != CUDNN_STATUS_SUCCESS)
      return graph_status;
    descriptor.finished = true;
    return CUDNN_STATUS_SUCCESS;
  }

  static inline FakeCudnn* current = nullptr;
};

}  // namespace damoyolo::cuda::test
