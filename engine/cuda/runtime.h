// The CUDA runtime as the backend uses it, so that tests can put another one in its place.
//
// Every call throws Error naming the runtime's function and its reason, OutOfDeviceMemory where that is one. Handles
// are CUDA's own pointer types; no CUDA header is needed to hold them. One Runtime stands for one device; calls may
// come from any thread that has called make_current().
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>

#include "engine/core/error.h"
#include "engine/core/out_of_device_memory.h"

struct CUstream_st;
struct CUevent_st;
struct CUgraphExec_st;

namespace damoyolo::cuda {

using StreamHandle = CUstream_st*;
using EventHandle = CUevent_st*;
using GraphHandle = CUgraphExec_st*;

class Runtime {
 public:
  virtual ~Runtime() = default;

  virtual void make_current() = 0;  // for the calling thread

  virtual std::byte* allocate(std::size_t bytes) = 0;  // device memory, aligned to 256 bytes
  virtual void release(std::byte* memory) noexcept = 0;
  virtual std::byte* allocate_pinned(std::size_t bytes) = 0;  // host memory that copies need not stage
  virtual void release_pinned(std::byte* memory) noexcept = 0;

  // Device memory that is taken, by the driver's count, beyond what was when the device was opened.
  virtual std::int64_t used_bytes() = 0;

  virtual StreamHandle create_stream() = 0;
  virtual void destroy(StreamHandle stream) noexcept = 0;
  virtual EventHandle create_event(bool timed) = 0;
  virtual void destroy(EventHandle event) noexcept = 0;

  virtual void record(EventHandle event, StreamHandle stream) = 0;
  virtual void wait(StreamHandle stream, EventHandle event) = 0;  // work enqueued later waits for the event
  virtual void synchronize(EventHandle event) = 0;                // the calling thread waits
  virtual void synchronize(StreamHandle stream) = 0;
  virtual double seconds_between(EventHandle begin, EventHandle end) = 0;  // both timed and done

  virtual void copy(void* to, const void* from, std::size_t bytes, StreamHandle stream) = 0;  // in any direction
  virtual void fill_zero(std::byte* memory, std::size_t bytes, StreamHandle stream) = 0;

  // What `enqueue` puts on the stream, and on streams that it forks from there and joins again, as one graph. Other
  // threads may use the device meanwhile; those that capture, or open libraries, wait.
  virtual GraphHandle capture(StreamHandle stream, const std::function<void()>& enqueue) = 0;
  virtual void launch(GraphHandle graph, StreamHandle stream) = 0;
  virtual void destroy(GraphHandle graph) noexcept = 0;
};

// Gives what it holds back to the runtime, which must outlive it.
template <typename T>
using Owned = std::unique_ptr<T, std::function<void(T*)>>;

inline Owned<std::byte> device_memory(Runtime& runtime, std::size_t bytes) {
  return {runtime.allocate(bytes), [&runtime](std::byte* memory) { runtime.release(memory); }};
}
inline Owned<std::byte> pinned_memory(Runtime& runtime, std::size_t bytes) {
  return {runtime.allocate_pinned(bytes), [&runtime](std::byte* memory) { runtime.release_pinned(memory); }};
}
inline Owned<CUstream_st> make_stream(Runtime& runtime) {
  return {runtime.create_stream(), [&runtime](StreamHandle stream) { runtime.destroy(stream); }};
}
inline Owned<CUevent_st> make_event(Runtime& runtime, bool timed = false) {
  return {runtime.create_event(timed), [&runtime](EventHandle event) { runtime.destroy(event); }};
}
inline Owned<CUgraphExec_st> capture_graph(Runtime& runtime, StreamHandle stream,
                                           const std::function<void()>& enqueue) {
  return {runtime.capture(stream, enqueue), [&runtime](GraphHandle graph) { runtime.destroy(graph); }};
}

}  // namespace damoyolo::cuda
