#include "engine/cuda/device_runtime.h"

#include <cuda_runtime_api.h>
#include <fmt/format.h>

#include <mutex>
#include <string>

#include "engine/cuda/capture_mutex.h"
#include "kernels/cuda_result.h"

namespace damoyolo::cuda {
namespace {

void check(cudaError_t result, const char* call) { check_cuda(result, "{}", call); }

class DeviceRuntime : public Runtime {
 public:
  explicit DeviceRuntime(int device) : device_(device) {
    make_current();
    free_at_first_ = free_bytes();
  }

  void make_current() override { check(cudaSetDevice(device_), "cudaSetDevice"); }

  std::byte* allocate(std::size_t bytes) override {
    void* memory = nullptr;
    check(cudaMalloc(&memory, bytes), "cudaMalloc");
    return static_cast<std::byte*>(memory);
  }
  void release(std::byte* memory) noexcept override { cudaFree(memory); }
  std::byte* allocate_pinned(std::size_t bytes) override {
    void* memory = nullptr;
    const cudaError_t result = cudaMallocHost(&memory, bytes);
    // Pinned memory is the host's.
    if (result == cudaErrorMemoryAllocation) {
      cudaGetLastError();
      throw Error("cudaMallocHost: the host has no {} bytes to pin", bytes);
    }
    check(result, "cudaMallocHost");
    return static_cast<std::byte*>(memory);
  }
  void release_pinned(std::byte* memory) noexcept override { cudaFreeHost(memory); }

  std::int64_t used_bytes() override { return free_at_first_ - free_bytes(); }

  StreamHandle create_stream() override {
    StreamHandle stream = nullptr;
    check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "cudaStreamCreateWithFlags");
    return stream;
  }
  void destroy(StreamHandle stream) noexcept override { cudaStreamDestroy(stream); }
  EventHandle create_event(bool timed) override {
    EventHandle event = nullptr;
    check(cudaEventCreateWithFlags(&event, timed ? cudaEventDefault : cudaEventDisableTiming),
          "cudaEventCreateWithFlags");
    return event;
  }
  void destroy(EventHandle event) noexcept override { cudaEventDestroy(event); }

  void record(EventHandle event, StreamHandle stream) override {
    check(cudaEventRecord(event, stream), "cudaEventRecord");
  }
  void wait(StreamHandle stream, EventHandle event) override {
    check(cudaStreamWaitEvent(stream, event, 0), "cudaStreamWaitEvent");
  }
  void synchronize(EventHandle event) override { check(cudaEventSynchronize(event), "cudaEventSynchronize"); }
  void synchronize(StreamHandle stream) override { check(cudaStreamSynchronize(stream), "cudaStreamSynchronize"); }
  double seconds_between(EventHandle begin, EventHandle end) override {
    float milliseconds = 0;
    check(cudaEventElapsedTime(&milliseconds, begin, end), "cudaEventElapsedTime");
    return static_cast<double>(milliseconds) / 1000;
  }

  void copy(void* to, const void* from, std::size_t bytes, StreamHandle stream) override {
    check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, stream), "cudaMemcpyAsync");
  }
  void fill_zero(std::byte* memory, std::size_t bytes, StreamHandle stream) override {
    check(cudaMemsetAsync(memory, 0, bytes, stream), "cudaMemsetAsync");
  }

  GraphHandle capture(StreamHandle stream, const std::function<void()>& enqueue) override {
    const std::scoped_lock lock(capture_mutex());
    check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "cudaStreamBeginCapture");
    cudaGraph_t graph = nullptr;
    try {
      enqueue();
    } catch (...) {
      cudaStreamEndCapture(stream, &graph);
      if (graph != nullptr) cudaGraphDestroy(graph);
      cudaGetLastError();
      throw;
    }
    check(cudaStreamEndCapture(stream, &graph), "cudaStreamEndCapture");
    GraphHandle instance = nullptr;
    const cudaError_t result = cudaGraphInstantiate(&instance, graph, 0);
    cudaGraphDestroy(graph);
    check(result, "cudaGraphInstantiate");
    // Or the first launch would do it, and find out then that there is too little memory.
    const cudaError_t uploaded = cudaGraphUpload(instance, stream);
    if (uploaded != cudaSuccess) cudaGraphExecDestroy(instance);
    check(uploaded, "cudaGraphUpload");
    return instance;
  }
  void launch(GraphHandle graph, StreamHandle stream) override {
    check(cudaGraphLaunch(graph, stream), "cudaGraphLaunch");
  }
  void destroy(GraphHandle graph) noexcept override { cudaGraphExecDestroy(graph); }

 private:
  static std::int64_t free_bytes() {
    std::size_t free = 0, total = 0;
    check(cudaMemGetInfo(&free, &total), "cudaMemGetInfo");
    return static_cast<std::int64_t>(free);
  }

  const int device_;
  std::int64_t free_at_first_ = 0;
};

std::string version_text(int version) { return fmt::format("{}.{}", version / 1000, version % 1000 / 10); }

}  // namespace

GpuList find_gpus() {
  GpuList list;
  int driver = 0, runtime = 0, count = 0;
  cudaRuntimeGetVersion(&runtime);
  const cudaError_t result = cudaGetDeviceCount(&count);
  if (result != cudaSuccess) {
    cudaGetLastError();
    const bool has_driver = cudaDriverGetVersion(&driver) == cudaSuccess && driver > 0;
    list.why_none = has_driver ? fmt::format("CUDA {} cannot use the NVIDIA driver, which is for CUDA {}: {}",
                                             version_text(runtime), version_text(driver), cudaGetErrorString(result))
                               : "there is no NVIDIA driver";
    return list;
  }
  cudaDriverGetVersion(&driver);
  for (int device = 0; device < count; ++device) {
    cudaDeviceProp properties{};
    if (cudaGetDeviceProperties(&properties, device) != cudaSuccess) {
      cudaGetLastError();
      continue;
    }
    list.gpus.push_back({device, properties.name, properties.major, properties.minor, properties.totalGlobalMem,
                         properties.multiProcessorCount, driver, runtime});
  }
  if (list.gpus.empty()) list.why_none = "the NVIDIA driver sees no GPU";
  return list;
}

std::unique_ptr<Runtime> open_runtime(int device) { return std::make_unique<DeviceRuntime>(device); }

}  // namespace damoyolo::cuda
