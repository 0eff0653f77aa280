// What the markers of a JPEG say that stb_image does not: how the camera was held, and how much work the file asks
// for.
#pragma once

#include <cstddef>
#include <span>

namespace damoyolo {

struct JpegMarkers {
  int orientation = 1;  // EXIF's, 1..8; 1, upright, when there is none or it makes no sense
  int scans = 0;        // passes over the picture: 1 in a baseline JPEG with interleaved components, else about 10
  // No table has more codes than there are bytes for them to stand for. stb_image 2.27 writes past its own tables
  // then.
  bool huffman_tables_valid = true;
};

// Follows the segments as far as they make sense; never throws, and reads nothing outside `bytes`.
JpegMarkers scan_jpeg_markers(std::span<const std::byte> bytes);

}  // namespace damoyolo
