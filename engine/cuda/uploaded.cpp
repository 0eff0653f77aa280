#include "engine/cuda/uploaded.h"

#include <cuda_runtime_api.h>

#include <algorithm>
#include <functional>
#include <map>
#include <mutex>
#include <string_view>
#include <tuple>
#include <vector>

#include "kernels/cuda_result.h"

namespace damoyolo::cuda {
namespace {

// Device, size and a hash. Bytes that have all three in common are compared.
using Key = std::tuple<int, std::size_t, std::size_t>;

void check(cudaError_t status, std::size_t bytes) {
  check_cuda(status, "{} bytes of weights were not uploaded to the device", bytes);
}

// Over when it returns. On a stream of the thread's own: the one that is there without asking waits for all streams of
// the process that were not made as ours are, which a program around us may be capturing.
cudaError_t copy(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind) {
  const cudaError_t status = cudaMemcpyAsync(to, from, bytes, kind, cudaStreamPerThread);
  return status == cudaSuccess ? cudaStreamSynchronize(cudaStreamPerThread) : status;
}

std::shared_ptr<void> copy_to_device(std::span<const std::byte> bytes) {
  void* memory = nullptr;
  check(cudaMalloc(&memory, bytes.size()), bytes.size());
  std::shared_ptr<void> owned(memory, cudaFree);
  check(copy(memory, bytes.data(), bytes.size(), cudaMemcpyHostToDevice), bytes.size());
  return owned;
}

// Read back: a copy on the host would take as much memory again.
bool are_on_device(std::span<const std::byte> bytes, const void* memory) {
  std::vector<std::byte> held(bytes.size());
  check_cuda(copy(held.data(), memory, held.size(), cudaMemcpyDeviceToHost),
             "{} bytes of weights were not read back from the device", held.size());
  return std::ranges::equal(held, bytes);
}

struct Store {
  std::mutex mutex;
  std::multimap<Key, std::weak_ptr<const void>> held;  // and what was held once
};

Store& store() {
  static Store store;
  return store;
}

}  // namespace

Uploaded::Uploaded(std::span<const std::byte> bytes) {
  int device = 0;
  check(cudaGetDevice(&device), bytes.size());
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  auto& [mutex, held] = store();
  const std::scoped_lock lock(mutex);
  std::erase_if(held, [](const auto& entry) { return entry.second.expired(); });
  const Key key{device, bytes.size(), std::hash<std::string_view>()(text)};
  const auto [first, last] = held.equal_range(key);
  for (auto known = first; known != last; ++known) {
    memory_ = known->second.lock();
    if (memory_ != nullptr && are_on_device(bytes, memory_.get())) return;
  }
  memory_ = copy_to_device(bytes);
  held.emplace(key, memory_);
}

std::size_t uploaded_bytes() {
  auto& [mutex, held] = store();
  const std::scoped_lock lock(mutex);
  std::size_t sum = 0;
  for (const auto& [key, memory] : held) sum += memory.expired() ? 0 : std::get<1>(key);
  return sum;
}

ZeroedMemory::ZeroedMemory(std::size_t bytes) : memory_(copy_to_device(std::vector<std::byte>(bytes))) {}

}  // namespace damoyolo::cuda
