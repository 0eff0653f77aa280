// While a convolution runs, its blocks bring what the next kernel reads to the second-level cache (Convolution::next).
// At batch 1 a network's weights are most of what it reads, and with its tensors more than the cache keeps until the
// next image. Without this, each kernel's first blocks would wait for device memory.
#pragma once

#include <algorithm>

#include "kernels/conv.h"
#include "kernels/ptx.cuh"

namespace damoyolo::kernels {

struct NextWeights {
  const unsigned char* from;
  unsigned bytes, share;  // of all, and of each block until there is no more; few blocks leave the rest

  // By `threads` threads of block number `block`.
  __device__ __forceinline__ void prefetch(unsigned block, int thread, int threads) const {
    const unsigned begin = block * share;
    if (begin < bytes) prefetch_l2(from + begin, share < bytes - begin ? share : bytes - begin, thread, threads);
  }
};

inline NextWeights next_weights(const Convolution& convolution, unsigned blocks) {
  // Less is not worth another block's instructions. More would be late, and a prefetch takes 16 bits of units.
  constexpr std::size_t kLine = 128, kLeast = 16 * kLine, kMost = 2048 * kLine;
  const std::size_t lines = (convolution.next_bytes + blocks * kLine - 1) / (blocks * kLine);
  return {static_cast<const unsigned char*>(convolution.next), static_cast<unsigned>(convolution.next_bytes),
          static_cast<unsigned>(std::clamp(lines * kLine, kLeast, kMost))};
}

}  // namespace damoyolo::kernels
