// What launchers take: views of device memory, images, and the stream to run on. Plain structs; no CUDA header needed.
#pragma once

#include <cstdint>

#include "engine/core/dtype.h"

struct CUstream_st;

namespace damoyolo::kernels {

// Channels [channel_offset, channel_offset + c) of an NHWC buffer on the device: element (n, y, x, k) lies at
// data[((n·h + y)·w + x)·pixel_stride + channel_offset + k]. Type F32, F16 or BF16. Kernels move 16 bytes at a time
// where data, pixel_stride and channel_offset are multiples of 16 bytes, and single elements otherwise.
struct TensorView {
  void* data = nullptr;
  DType type = DType::F32;
  int n = 0, h = 0, w = 0, c = 0;
  int pixel_stride = 0;  // elements between pixels: the width of the buffer
  int channel_offset = 0;
};

// One decoded image of a batch: height rows of width RGB pixels, packed. Width 0 marks an unused place in the batch.
struct Image {
  const std::uint8_t* rgb = nullptr;  // on the device
  int width = 0, height = 0;
};

// Where a launcher puts its work. With `overlap`, a kernel may start before the one before it on the stream has ended
// (programmatic dependent launch), and waits by itself before it touches memory; only for compute capability 9.0 and
// later.
struct Stream {
  CUstream_st* handle = nullptr;
  bool overlap = false;
};

}  // namespace damoyolo::kernels
