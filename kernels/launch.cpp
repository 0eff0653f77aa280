#include "kernels/launch.h"

#include <mutex>

#include "engine/core/error.h"
#include "kernels/cuda_result.h"

namespace damoyolo::kernels {

void require(bool holds, const char* kernel, const char* expected) {
  if (!holds) throw Error("kernel {} expects {}", kernel, expected);
}

void check(cudaError_t result, const char* kernel) { check_cuda(result, "kernel {} was not launched", kernel); }

void require_view(const TensorView& view, const char* kernel) {
  require(view.data != nullptr, kernel, "a tensor with data");
  require(view.type == DType::F32 || view.type == DType::F16 || view.type == DType::BF16, kernel,
          "elements of type F32, F16 or BF16");
  require(view.n > 0 && view.h > 0 && view.w > 0 && view.c > 0, kernel, "a tensor with positive sizes");
  require(view.channel_offset >= 0 && view.c <= view.pixel_stride - view.channel_offset, kernel,
          "channels inside the width of their buffer");
}

bool same_size(const TensorView& a, const TensorView& b) {
  return a.n == b.n && a.h == b.h && a.w == b.w && a.c == b.c;
}

unsigned blocks_for(std::int64_t items, unsigned threads, const char* kernel) {
  constexpr std::int64_t kMaxItems = 0x7fffffff;  // so that kernels can count them in an int
  require(items > 0 && items <= kMaxItems - threads, kernel, "between 1 and 2^31 units of work");
  return static_cast<unsigned>((items + threads - 1) / threads);
}

void prepare_shared_memory(const void* function, std::size_t bytes, const char* kernel) {
  static std::mutex mutex;
  const std::scoped_lock lock(mutex);
  cudaFuncAttributes attributes{};
  check(cudaFuncGetAttributes(&attributes, function), kernel);
  const auto wanted = static_cast<int>(bytes);
  if (wanted > attributes.maxDynamicSharedSizeBytes)
    check(cudaFuncSetAttribute(function, cudaFuncAttributeMaxDynamicSharedMemorySize, wanted), kernel);
  if (attributes.preferredShmemCarveout != cudaSharedmemCarveoutMaxShared)
    check(
        cudaFuncSetAttribute(function, cudaFuncAttributePreferredSharedMemoryCarveout, cudaSharedmemCarveoutMaxShared),
        kernel);
}

}  // namespace damoyolo::kernels
