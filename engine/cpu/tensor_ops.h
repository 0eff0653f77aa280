// The CPU plan's steps that are not convolutions. Memory-bound loops, parallel over pixels with OpenMP.
#pragma once

#include <cstdint>

#include "engine/core/dtype.h"
#include "engine/graph.h"

namespace damoyolo::cpu {

// Channels of a dense tensor in memory: `shape.c` of them every `pixel_stride` elements, starting at `data`.
struct Channels {
  std::byte* data = nullptr;
  Shape shape;
  int pixel_stride = 0;
  DType dtype{};  // F32 or BF16
};

// uint8 [n, h, w, 3] → activations; with `space_to_depth` as the graph's Cast says.
void cast(const std::uint8_t* images, const Channels& target, bool space_to_depth);

// Nearest ×2, into the target's type.
void upsample(const Channels& source, const Channels& target);

// Max-pools 5, 9, 13 into three blocks of source.shape.c channels: each pools the one before it by 5 once more, and a
// square pool is a pool along the rows, then along the columns.
void spp_pool(const Channels& source, const Channels& target);

// x·sigmoid(x) of every element, in place. Float32, all channels of the tensor.
void silu(const Channels& target);

// target = source (+ residual; its data may be null). Sums in float32, and of one type; without a residual, the
// source is converted into the target's type.
void assemble(const Channels& source, const Channels& residual, const Channels& target);

}  // namespace damoyolo::cpu
