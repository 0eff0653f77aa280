// A stroke font: every character is a few lines on a grid, so that it is smooth at any size.
#pragma once

#include <string_view>
#include <vector>

namespace damoyolo {

// A line of the pen's centre, in units of which a capital letter is 12 high: x to the right from the start of the
// text, y downwards from the capitals' upper edge. A dot is a line to where it began.
struct Stroke {
  float x1, y1, x2, y2;
};

constexpr float kCapitalHeight = 12;
constexpr float kDescent = 4;   // how far a g reaches below the line that letters stand on
constexpr float kPenWidth = 2;  // lines end round

struct StrokedText {
  std::vector<Stroke> strokes;
  float width = 0;  // from the left edge of the first character to the right edge of the last, pen included
};

// One line of text in UTF-8. Whatever is not printable ASCII becomes a box for each character.
StrokedText stroke_text(std::string_view text);

}  // namespace damoyolo
