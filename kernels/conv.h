// Dense convolutions on tensor cores, as implicit matrix products: the rows are output pixels, the columns output
// channels, and every sum runs over taps × input channels. Windows are read where they lie; nothing is written out
// in their order. There is one kernel for each generation of tensor cores, with the same arguments.
#pragma once

#include <cstddef>

#include "kernels/epilogue.h"

namespace damoyolo::kernels {

// A convolution of kernel 1 and stride 1, of what another one gives, in the same launch. Its output overlaps none of
// the other's tensors.
struct Pointwise {
  const void* weights = nullptr;  // on the device, at a multiple of 16 bytes: [y.c, channels of the other] in its type
  TensorView y;                   // of the other's size and type, c > 0; no c: nothing follows
  Epilogue epilogue;              // without a residual
};

// y = epilogue(conv(x)), padding (kernel − 1)/2, sums in fp32. y overlaps neither x nor a residual of half its size.
struct Convolution {
  TensorView x;                   // F16 or BF16; every pixel's first channel at a multiple of 16 bytes, c of 8
  const void* weights = nullptr;  // on the device, at a multiple of 16 bytes: [y.c, kernel, kernel, x.c] in x's type
  int kernel = 1, stride = 1;     // 1 or 3; 1 or 2
  TensorView y;                   // [n, ⌈h/stride⌉, ⌈w/stride⌉, c] in x's type or F32; any alignment
  Epilogue epilogue;              // a residual has x's type
  // As much as the kernel's ConvMemory says: memory for partial sums, at a multiple of 256 bytes, nobody else's
  // meanwhile; and zeros, which the kernel leaves as zeros.
  void* workspace = nullptr;
  unsigned* tickets = nullptr;
  // What the next kernel will read that no kernel writes, its weights: this one brings them to the second-level cache
  // meanwhile. Multiples of 16 bytes, below 2 GiB.
  const void* next = nullptr;
  std::size_t next_bytes = 0;
  // Takes y as rounded to its type. `keep`: y is stored, as without it; otherwise it has a shape and no data.
  Pointwise then = {};
  bool keep = true;
};

// How a kernel divides the work. Only the configurations that a kernel lists are compiled; `split` and `sharing`
// are free.
struct ConvConfig {
  int m = 128;      // output pixels of a tile
  int n = 64;       // output channels of a tile
  int k = 64;       // products of one step of a sum
  int stages = 4;   // steps that are on their way from memory while one is computed, at most
  int columns = 0;  // a tile is a rectangle of m / columns rows of so many pixels; 0: m pixels in row-major order
  int split = 1;    // blocks that share each tile's sum, at most kMaxConvSplit; added up in a fixed order
  int taps = 1;     // of a window in one step: one, or the three of its column, which share their pixels
  int sharing = 1;  // blocks that share the weights they read, 1 or 2; not where they share a sum
  int then = 0;     // output channels of Convolution::then, all in one tile, as are those of y; 0: there is none
  bool pingpong = false;  // two warpgroups take turns on tiles of their own; not where blocks share a sum

  bool operator==(const ConvConfig&) const = default;
};
constexpr int kMaxConvSplit = 16;

// What `split` > 1 may need; 0 otherwise.
struct ConvMemory {
  std::size_t workspace_bytes = 0, tickets = 0;
};

}  // namespace damoyolo::kernels
