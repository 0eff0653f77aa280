// The CUDA runtime played by the host: device memory is host memory, work is done when it is enqueued, and every call
// that matters to the order of things is recorded. A captured graph is what it was made of, done again; while that
// happens, what CUDA refuses during a capture is refused, by the runtime that kernels use as well (tests/simt).
#pragma once

#include <doctest/doctest.h>

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <functional>
#include <map>
#include <new>
#include <string>
#include <vector>

#include "engine/cuda/runtime.h"
#include "tests/simt/cuda_runtime.h"

namespace damoyolo::cuda {

struct RecordedCall {
  enum class Kind { Record, Wait, Step, Copy, Synchronize, Launch } kind{};
  StreamHandle stream = nullptr;
  EventHandle event = nullptr;
  std::size_t value = 0;  // a step, or bytes
};

// Current for the thread that makes it. What CUDA lets pass and is a mistake here all the same is refused, too: calls
// while another runtime is current, and waits for events that nobody has recorded.
class HostRuntime : public Runtime {
 public:
  std::vector<RecordedCall> calls;
  std::size_t allocations = 0;                            // ever made, of either kind
  std::size_t device_limit = ~std::size_t{0};             // bytes that fit on the device
  std::function<double()> elapsed = [] { return 1e-3; };  // between two events
  std::function<double()> now;  // where there is one, it is asked when a timed event is recorded, and that counts
  std::string lost;             // why the device cannot be used any more; empty: it can

  HostRuntime() { current_ = this; }

  std::size_t device_peak() const { return device_peak_; }  // bytes
  std::size_t live() const { return memory_.size() + streams_ + events_.size() + graphs_.size(); }
  std::size_t count(RecordedCall::Kind kind) const {
    std::size_t found = 0;
    for (const RecordedCall& call : calls) found += call.kind == kind;
    return found;
  }
  void record_step(std::size_t step, StreamHandle stream) {
    calls.push_back({RecordedCall::Kind::Step, stream, nullptr, step});
  }

  void make_current() override { current_ = this; }
  std::byte* allocate(std::size_t bytes) override {
    require_outside_capture("cudaMalloc");
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
    require_outside_capture("cudaMallocHost");
    ++allocations;
    // What was never written must not matter: it is NaN in every type.
    std::byte* const memory = new (std::align_val_t{256}) std::byte[bytes];
    std::memset(memory, 0xff, bytes);
    memory_[memory] = bytes;
    return memory;
  }
  void release_pinned(std::byte* memory) noexcept override {
    CHECK_MESSAGE(current_ == this, "memory is released while another device is current");
    CHECK_MESSAGE(clocks_.empty(), "memory is released during a capture");
    memory_.erase(memory);
    ::operator delete[](memory, std::align_val_t{256});
  }

  std::int64_t used_bytes() override { return static_cast<std::int64_t>(device_bytes_); }

  StreamHandle create_stream() override {
    require_current();
    ++streams_;
    return handle<StreamHandle>();
  }
  void destroy(StreamHandle) noexcept override { --streams_; }
  EventHandle create_event(bool timed) override {
    require_current();
    const auto event = handle<EventHandle>();
    events_[event].timed = timed;
    return event;
  }
  void destroy(EventHandle event) noexcept override { events_.erase(event); }

  void record(EventHandle event, StreamHandle stream) override {
    enqueue_on(stream);
    calls.push_back({RecordedCall::Kind::Record, stream, event});
    Event& recorded = events_.at(event);
    recorded.recorded = true;
    recorded.capture = clocks_.empty() ? 0 : capture_;
    recorded.clock = clocks_.empty() ? Clock() : clocks_.at(stream);
    if (now && recorded.timed) recorded.time = now();
  }
  // Joins the stream to the capture that the event was recorded in.
  void wait(StreamHandle stream, EventHandle event) override {
    require_current();
    calls.push_back({RecordedCall::Kind::Wait, stream, event});
    const Event& awaited = events_.at(event);
    if (!awaited.recorded) throw Error("cudaStreamWaitEvent: the event was never recorded");
    if (awaited.capture != (clocks_.empty() ? 0 : capture_))
      throw Error("cudaStreamWaitEvent: dependency created on uncaptured work in another stream");
    if (clocks_.empty()) return;
    for (const auto& [other, time] : awaited.clock) clocks_[stream][other] = std::max(clocks_[stream][other], time);
    ++clocks_[stream][stream];  // streams wait for the sake of what comes next
    simt::after_kernel.erase(stream);
  }
  void synchronize(EventHandle event) override {
    require_outside_capture("cudaEventSynchronize");
    require_over(event, "cudaEventSynchronize");
    calls.push_back({RecordedCall::Kind::Synchronize, nullptr, event});
  }
  void synchronize(StreamHandle stream) override {
    require_outside_capture("cudaStreamSynchronize");
    calls.push_back({RecordedCall::Kind::Synchronize, stream});
  }
  double seconds_between(EventHandle begin, EventHandle end) override {
    require_outside_capture("cudaEventElapsedTime");
    for (const EventHandle event : {begin, end}) {
      require_over(event, "cudaEventElapsedTime");
      if (!events_.at(event).timed) throw Error("cudaEventElapsedTime: an event without a time");
    }
    return now ? events_.at(end).time - events_.at(begin).time : elapsed();
  }

  void copy(void* to, const void* from, std::size_t bytes, StreamHandle stream) override {
    enqueue_on(stream);
    simt::after_kernel.erase(stream);
    calls.push_back({RecordedCall::Kind::Copy, stream, nullptr, bytes});
    std::memcpy(to, from, bytes);
  }
  void fill_zero(std::byte* memory, std::size_t bytes, StreamHandle stream) override {
    enqueue_on(stream);
    simt::after_kernel.erase(stream);
    std::memset(memory, 0, bytes);
  }

  GraphHandle capture(StreamHandle stream, const std::function<void()>& enqueue) override {
    require_outside_capture("cudaStreamBeginCapture");
    const auto graph = handle<GraphHandle>();
    graphs_[graph] = {stream, enqueue};
    return graph;
  }
  void launch(GraphHandle graph, StreamHandle stream) override {
    require_outside_capture("cudaGraphLaunch");
    calls.push_back({RecordedCall::Kind::Launch, stream});
    const auto& [origin, enqueue] = graphs_.at(graph);
    const Capturing capturing(*this, origin);
    enqueue();
    for (const auto& [other, clock] : clocks_)
      if (clocks_.at(origin)[other] != clock.at(other))
        throw Error("cudaStreamEndCapture: capturing stream has unjoined work");
  }
  void destroy(GraphHandle graph) noexcept override { graphs_.erase(graph); }

 private:
  using Clock = std::map<StreamHandle, int>;  // by stream, how much of its work is done before
  struct Event {
    bool timed = false, recorded = false;
    double time = 0;
    int capture = 0;  // in which it was recorded last; 0: in none
    Clock clock;
  };
  struct Graph {
    StreamHandle origin = nullptr;
    std::function<void()> enqueue;
  };
  struct Capturing {
    Capturing(HostRuntime& runtime, StreamHandle origin) : runtime(runtime) {
      ++runtime.capture_;
      runtime.clocks_[origin][origin] = 0;
      simt::capturing = true;
      simt::after_kernel.clear();
    }
    ~Capturing() {
      runtime.clocks_.clear();
      simt::capturing = false;
    }
    HostRuntime& runtime;
  };

  void require_current() const {
    if (current_ != this) throw Error("the device is used by a thread for which another one is current");
    if (!lost.empty()) throw Error("{}", lost);
  }
  void require_outside_capture(const char* call) const {
    require_current();
    if (!clocks_.empty()) throw Error("{}: operation not permitted when stream is capturing", call);
  }
  void require_over(EventHandle event, const char* call) const {
    if (!events_.at(event).recorded) throw Error("{}: the event was never recorded", call);
    if (events_.at(event).capture != 0) throw Error("{}: the event was last recorded in a capture", call);
  }
  void enqueue_on(StreamHandle stream) {
    require_current();
    if (clocks_.empty()) return;
    if (!clocks_.contains(stream)) throw Error("work is enqueued on a stream that the capture does not know");
    ++clocks_[stream][stream];
  }

  // Never looked into.
  template <typename Handle>
  Handle handle() {
    return reinterpret_cast<Handle>(++last_handle_);
  }

  static inline thread_local const HostRuntime* current_ = nullptr;
  std::map<std::byte*, std::size_t> memory_;
  std::map<EventHandle, Event> events_;
  std::map<GraphHandle, Graph> graphs_;
  std::map<StreamHandle, Clock> clocks_;  // of streams that are being captured
  int capture_ = 0;                       // the last one's number
  std::size_t device_bytes_ = 0, device_peak_ = 0, streams_ = 0, last_handle_ = 0;
};

}  // namespace damoyolo::cuda
