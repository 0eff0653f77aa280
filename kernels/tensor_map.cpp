#include "kernels/tensor_map.h"

#include <cuda_runtime.h>

#include "engine/core/error.h"
#include "kernels/launch.h"

namespace damoyolo::kernels {
namespace {

using Encode = decltype(&cuTensorMapEncodeTiled);

// The driver's function, by way of the runtime, so that a binary needs no driver to start.
Encode find_encode(const char* kernel) {
  void* function = nullptr;
  cudaDriverEntryPointQueryResult found{};
#if CUDART_VERSION >= 12050
  check(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function, 12000, cudaEnableDefault, &found),
        kernel);
#else
  check(cudaGetDriverEntryPoint("cuTensorMapEncodeTiled", &function, cudaEnableDefault, &found), kernel);
#endif
  require(found == cudaDriverEntryPointSuccess && function != nullptr, kernel, "a driver that encodes tensor maps");
  return reinterpret_cast<Encode>(function);
}

CUtensorMapSwizzle swizzle_over(int span) {
  return span == 128 ? CU_TENSOR_MAP_SWIZZLE_128B : span == 64 ? CU_TENSOR_MAP_SWIZZLE_64B : CU_TENSOR_MAP_SWIZZLE_32B;
}

void require_sound(const TensorMap& map, const char* kernel) {
  require(map.type == DType::F16 || map.type == DType::BF16, kernel, "a tensor map of type F16 or BF16");
  require(map.rank >= 1 && map.rank <= TensorMap::kMaxRank, kernel, "a tensor map of 1 to 5 dimensions");
  require(map.data != nullptr && reinterpret_cast<std::uintptr_t>(map.data) % 16 == 0, kernel,
          "a tensor map of data at a multiple of 16 bytes");
  require(map.span == 32 || map.span == 64 || map.span == 128, kernel, "a tensor map with a span of 32, 64 or 128");
  require(map.box[0] * size_of(map.type) == static_cast<std::size_t>(map.span) && map.steps[0] == 1, kernel,
          "a tensor map with boxes as wide as its span");
  constexpr std::uint64_t kMaxSize = std::uint64_t{1} << 32, kMaxStride = std::uint64_t{1} << 40;
  for (int i = 0; i < map.rank; ++i) {
    require(map.size[i] >= 1 && map.size[i] <= kMaxSize, kernel, "a tensor map with sizes of 1 to 2^32");
    require(map.box[i] >= 1 && map.steps[i] >= 1 && map.steps[i] <= 8 && map.box[i] <= 256 / map.steps[i], kernel,
            "a tensor map with boxes of 1 to 256 elements, those stepped over included");
    if (i == 0) continue;
    require(map.strides[i - 1] % 16 == 0 && map.strides[i - 1] < kMaxStride, kernel,
            "a tensor map with strides that are multiples of 16 bytes, below 2^40");
    // The driver's manual asks for it, whether or not the driver does.
    require(i == 1 || map.strides[i - 1] % map.strides[i - 2] == 0, kernel,
            "a tensor map each of whose strides is a multiple of the one before");
  }
}

}  // namespace

CUtensorMap encode(const TensorMap& map, const char* kernel) {
  require_sound(map, kernel);
  static const Encode encode_tiled = find_encode(kernel);
  // The driver's boxes count the elements that are stepped over, too.
  std::array<cuuint32_t, TensorMap::kMaxRank> box{};
  for (int i = 0; i < map.rank; ++i) box[i] = map.box[i] * map.steps[i];
  CUtensorMap encoded;
  const CUresult result = encode_tiled(
      &encoded, map.type == DType::BF16 ? CU_TENSOR_MAP_DATA_TYPE_BFLOAT16 : CU_TENSOR_MAP_DATA_TYPE_FLOAT16,
      static_cast<cuuint32_t>(map.rank), const_cast<void*>(map.data), map.size.data(), map.strides.data(), box.data(),
      map.steps.data(), CU_TENSOR_MAP_INTERLEAVE_NONE, swizzle_over(map.span), CU_TENSOR_MAP_L2_PROMOTION_L2_128B,
      CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (result != CUDA_SUCCESS)
    throw Error("kernel {} expects a tensor map that the driver accepts, and got its error {}", kernel,
                static_cast<int>(result));
  return encoded;
}

}  // namespace damoyolo::kernels
