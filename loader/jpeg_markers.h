// What the markers of a JPEG say that stb_image does not: how the camera was held, and how much work the file asks
// for.
#pragma once

#include <cstddef>
#include <span>

namespace damoyolo {

struct JpegMarkers {
  int orientation = 1;  // EXIF's, 1..8; 1, upright, when there is none or it makes no sense
  int scans = 0;        // passes over the picture: 1 in a baseline JPEG with interleaved components, else about 10
};

// Follows the segments as far as they make sense; never throws, and reads nothing outside `bytes`.
JpegMarkers scan_jpeg_markers(std::span<const std::byte> bytes);

}  // namespace damoyolo
