// Tensor maps: how a bulk tensor copy (TMA) finds a box of elements in memory, for compute capability 9.0 and later.
#pragma once

#include <cuda.h>

#include <array>
#include <cstdint>

#include "engine/core/dtype.h"

namespace damoyolo::kernels {

// A tensor in device memory and the boxes that are copied out of it or into it. Dimension 0 is the innermost, whose
// elements lie side by side. A box starts anywhere, also outside: elements outside the tensor arrive as zeros, and are
// not written. In shared memory it is dense, dimension 0 innermost; then the 16-byte pieces of each row of dimension 0
// are swizzled over its `span`.
struct TensorMap {
  static constexpr int kMaxRank = 5;

  DType type = DType::BF16;    // or F16
  const void* data = nullptr;  // at a multiple of 16 bytes
  int rank = 0;
  std::array<std::uint64_t, kMaxRank> size{};         // at most 2^32
  std::array<std::uint64_t, kMaxRank - 1> strides{};  // bytes between elements of dimensions 1 and on: below
                                                      // 2^40, multiples of 16 and of the one before
  std::array<std::uint32_t, kMaxRank> box{};          // elements that arrive, from 1; times their step at most 256
  std::array<std::uint32_t, kMaxRank> steps{1, 1, 1, 1, 1};  // every so many-th element is taken; of dimension 0, 1
  int span = 128;                                            // bytes of the box in dimension 0: 32, 64 or 128
};

// What the instructions take. Calls the driver, which needs no device for it. Throws Error, which names `kernel`,
// when the driver is missing or the map breaks one of the rules above.
CUtensorMap encode(const TensorMap& map, const char* kernel);

}  // namespace damoyolo::kernels
