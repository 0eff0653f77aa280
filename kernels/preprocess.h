// From pixels to the network's input.
#pragma once

#include "kernels/tensor.h"

namespace damoyolo::kernels {

// How network pixels become channels of the output. Either way channels past 3 (or 12) are zeros.
enum class PixelLayout {
  Rgb,           // y is [n, h, w, ≥ 3]: R, G, B of each pixel
  SpaceToDepth,  // y is [n, h/2, w/2, ≥ 12]: R, G, B of pixels (0,0), (1,0), (0,1), (1,1) of each 2 × 2, (row, column)
};

// Resizes images of any sizes to y's size, values 0..255, in one launch: bilinear in integers as OpenCV's INTER_LINEAR
// on uint8, bit for bit what the host does. images: y.n of them, on the device, each at most 2^20 pixels on a side;
// one of width 0 gives zeros.
void launch_preprocess(const Image* images, const TensorView& y, PixelLayout layout, Stream stream);

// The same for `pixels` already at network size, on the device: [n, h, w, 3], packed.
void launch_cast(const std::uint8_t* pixels, const TensorView& y, PixelLayout layout, Stream stream);

}  // namespace damoyolo::kernels
