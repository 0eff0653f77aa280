// Reading pictures from files.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>

#include "engine/core/image.h"

namespace damoyolo {

// Decodes a JPEG (baseline or progressive; grey, YCbCr, RGB, and Adobe's CMYK and YCCK), PNG or BMP. The pixels are
// those of OpenCV's imread(IMREAD_COLOR), up to a level or two in a JPEG: 16-bit samples keep their upper byte, grey
// is copied to three channels, alpha is dropped, and the EXIF orientation of a JPEG is applied.
//
// Throws Error naming `origin` when the bytes are none of these formats, are damaged, end too early, or are an image
// of more than 2^28 pixels. The size in the header is believed only as far as that many bytes can hold such an image,
// so a short file never makes this allocate much. Safe to call from any thread.
Image decode_image(std::span<const std::byte> bytes, std::string_view origin);

// Reads the file, of at most 1 GiB, and decodes it. Throws Error when it cannot be read, too.
Image read_image(const std::string& path);

}  // namespace damoyolo
