// Pictures in memory.
#pragma once

#include <cstdint>
#include <vector>

namespace damoyolo {

struct Image {
  int width = 0, height = 0;
  std::vector<std::uint8_t> rgb;  // [height][width][3]
};

// Pixels in somebody else's memory, laid out as in Image.
struct ImageView {
  ImageView(int w, int h, const std::uint8_t* pixels) : width(w), height(h), rgb(pixels) {}
  ImageView(const Image& image) : width(image.width), height(image.height), rgb(image.rgb.data()) {}

  int width, height;
  const std::uint8_t* rgb;
};

}  // namespace damoyolo
