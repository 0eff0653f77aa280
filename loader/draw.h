// Drawing what was found into a picture.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>

#include "loader/image.h"

namespace damoyolo {

struct Annotation {
  float x1 = 0, y1 = 0, x2 = 0, y2 = 0;  // pixels of the image; parts outside are cut off
  std::string text;                      // "person 0.87", in UTF-8; empty: no label
  int class_id = 0;                      // chooses the colour
};

// Boxes with their labels; of two that overlap, the earlier is on top. Lines and letters grow with the image.
void draw(Image& image, std::span<const Annotation> annotations);

// A colour that is always the same for a class and differs from its neighbours' in the list of classes.
std::array<std::uint8_t, 3> class_color(int class_id);

}  // namespace damoyolo
