// Resizing pictures to the network's size.
#pragma once

#include <cstdint>

#include "engine/core/image.h"

namespace damoyolo {

// Scales the whole image to width × height, aspect ratio not kept, and writes [height][width][3] to `out`, which must
// not overlap the image. All sizes are at least 1.
//
// Bilinear between pixel centres without a low-pass filter, in fixed point: what OpenCV's INTER_LINEAR gives for 8-bit
// images, up to one level in a few pixels. Any image of the network's own size is copied. Uses the OpenMP threads it
// is given when the result is large enough to share; the result does not depend on their number.
void resize_bilinear(ImageView image, int width, int height, std::uint8_t* out);

}  // namespace damoyolo
