// The CUDA runtime played by the host: device memory is host memory, work is done when it is enqueued, and every call
// that matters to the order of things is recorded. A captured graph is what it was made of, done again.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <functional>
#include <map>
#include <new>
#include <vector>

#include "engine/cuda/runtime.h"

namespace damoyolo::cuda {

struct RecordedCall {
  enum class Kind { Record, Wait, Step, Copy, Synchronize, Launch } kind{};
  StreamHandle stream = nullptr;
  EventHandle event = nullptr;
  std::size_t value = 0;  // a step, or bytes
};

class HostRuntime : public Runtime {
 public:
  std::vector<RecordedCall> calls;
  std::size_t allocations = 0;                 // ever made, of either kind
  std::size_t device_limit = ~std::size_t{0};  // bytes that fit on the device
  std::function<double()> elapsed = [] { return 1e-3; };

  std::size_t device_peak() const { return device_peak_; }  // bytes
  std::size_t live() const { return memory_.size() + handles_; }
  std::size_t count(RecordedCall::Kind kind) const {
    std::size_t found = 0;
    for (const RecordedCall& call : calls) found += call.kind == kind;
    return found;
  }
  void record_step(std::size_t step, StreamHandle stream) {
    calls.push_back({RecordedCall::Kind::Step, stream, nullptr, step});
  }

  void make_current() override {}
  std::byte* allocate(std::size_t bytes) override {
    if (device_bytes_ + bytes > device_limit) throw OutOfDeviceMemory("cudaMalloc: out of memory");
    std::byte* const memory = allocate_pinned(bytes);
    device_bytes_ += bytes;
    device_peak_ = std::max(device_peak_, device_bytes_);
    return memory;
  }
  void release(std::byte* memory) noexcept override {
    device_bytes_ -= memory_.at(memory);
    release_pinned(memory);
  }
  std::byte* allocate_pinned(std::size_t bytes) override {
    ++allocations;
    // What was never written must not matter: it is NaN in every type.
    std::byte* const memory = new (std::align_val_t{256}) std::byte[bytes];
    std::memset(memory, 0xff, bytes);
    memory_[memory] = bytes;
    return memory;
  }
  void release_pinned(std::byte* memory) noexcept override {
    memory_.erase(memory);
    ::operator delete[](memory, std::align_val_t{256});
  }

  std::int64_t used_bytes() override { return static_cast<std::int64_t>(device_bytes_); }

  StreamHandle create_stream() override { return handle<StreamHandle>(); }
  void destroy(StreamHandle) noexcept override { --handles_; }
  EventHandle create_event(bool) override { return handle<EventHandle>(); }
  void destroy(EventHandle) noexcept override { --handles_; }

  void record(EventHandle event, StreamHandle stream) override {
    calls.push_back({RecordedCall::Kind::Record, stream, event});
  }
  void wait(StreamHandle stream, EventHandle event) override {
    calls.push_back({RecordedCall::Kind::Wait, stream, event});
  }
  void synchronize(EventHandle event) override { calls.push_back({RecordedCall::Kind::Synchronize, nullptr, event}); }
  void synchronize(StreamHandle stream) override { calls.push_back({RecordedCall::Kind::Synchronize, stream}); }
  double seconds_between(EventHandle, EventHandle) override { return elapsed(); }

  void copy(void* to, const void* from, std::size_t bytes, StreamHandle stream) override {
    calls.push_back({RecordedCall::Kind::Copy, stream, nullptr, bytes});
    std::memcpy(to, from, bytes);
  }
  void fill_zero(std::byte* memory, std::size_t bytes, StreamHandle) override { std::memset(memory, 0, bytes); }

  GraphHandle capture(StreamHandle, const std::function<void()>& enqueue) override {
    const auto graph = handle<GraphHandle>();
    graphs_[graph] = enqueue;
    return graph;
  }
  void launch(GraphHandle graph, StreamHandle stream) override {
    calls.push_back({RecordedCall::Kind::Launch, stream});
    graphs_.at(graph)();
  }
  void destroy(GraphHandle graph) noexcept override {
    graphs_.erase(graph);
    --handles_;
  }

 private:
  // Never looked into.
  template <typename Handle>
  Handle handle() {
    ++handles_;
    return reinterpret_cast<Handle>(++last_handle_);
  }

  std::map<std::byte*, std::size_t> memory_;
  std::map<GraphHandle, std::function<void()>> graphs_;
  std::size_t device_bytes_ = 0, device_peak_ = 0, handles_ = 0, last_handle_ = 0;
};

}  // namespace damoyolo::cuda
