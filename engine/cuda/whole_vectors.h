// Kernels, ours and the libraries', move 16 bytes at a time where pixels are multiples of that.
#pragma once

#include "engine/core/dtype.h"

namespace damoyolo::cuda {

// The next number of channels whose bytes are such a multiple.
inline int in_whole_vectors(int channels, DType type) {
  const int vector = 16 / static_cast<int>(size_of(type));
  return (channels + vector - 1) / vector * vector;
}

}  // namespace damoyolo::cuda
