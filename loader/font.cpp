#include "loader/font.h"

#include <algorithm>
#include <array>

namespace damoyolo {
namespace {

// The printable ASCII characters from ' ' to '~', then the box for all others. A character is lines separated by
// blanks; a line is points of two characters: x from '0', y from 'a', the capitals' upper edge. Small letters begin at
// 'e', both stand at 'm', and 'q' is as low as it goes.
constexpr std::array<std::string_view, 96> kGlyphs = {
    "",
    "0a0i 0m0m",
    "0a0d 3a3d",
    "3a2m 7a6m 0e9e 0i9i",
    "7c5b2b0c0e2g5g7i7k5l2l0k 4a4m",
    "0b1a2a3b3d2e1e0d0b 8a1m 6j7i8i9j9l8m7m6l6j",
    "8m1e1c3a4a6c6d0i0k2m4m8h",
    "0a0d",
    "3a0d0j3m",
    "0a3d3j0m",
    "3a3g 0b6f 6b0f",
    "3e3k 0h6h",
    "1l0o",
    "0h5h",
    "0m0m",
    "0m5a",
    "2a5a7c7k5m2m0k0c2a",
    "0d3a3m 0m6m",
    "0c2a5a7c7e0m7m",
    "0c2a5a7c7e5g7i7k5m2m0k 2g5g",
    "5m5a0i7i",
    "7a1a0f5f7h7k5m2m0k",
    "6a4a0f0k2m5m7k7h5f2f0h",
    "0a7a3m",
    "2a5a7c7e5g2g0e0c2a 2g0i0k2m5m7k7i5g",
    "1m3m7h7c5a2a0c0f2h5h7f",
    "0e0e 0m0m",
    "1e1e 1l0o",
    "6d0h6l",
    "0f6f 0j6j",
    "0d6h0l",
    "0c2a4a6c6e3g3i 3m3m",
    "7i5j3i3f5e7f7j9j:h:d7a3a0d0j3m7m",
    "0m4a8m 1i7i",
    "0g6g8i8k6m0m0a5a7c7e5g",
    "8c6a2a0c0k2m6m8k",
    "0a0m5m8j8d5a0a",
    "7a0a0m7m 0g6g",
    "7a0a0m 0g6g",
    "8c6a2a0c0k2m6m8k8g5g",
    "0a0m 8a8m 0g8g",
    "0a4a 2a2m 0m4m",
    "6a6k4m2m0k",
    "0a0m 7a0h 3e8m",
    "0a0m7m",
    "0m0a5h:a:m",
    "0m0a8m8a",
    "2a6a8c8k6m2m0k0c2a",
    "0m0a6a8c8f6h0h",
    "2a6a8c8k6m2m0k0c2a 5j8n",
    "0m0a6a8c8f6h0h 4h8m",
    "8c6a2a0c0e2g6g8i8k6m2m0k",
    "0a8a 4a4m",
    "0a0k2m6m8k8a",
    "0a4m8a",
    "0a3m6d9m<a",
    "0a8m 8a0m",
    "0a4g8a 4g4m",
    "0a8a0m8m",
    "3a0a0m3m",
    "0a5m",
    "0a3a3m0m",
    "0e3a6e",
    "0n7n",
    "0a2c",
    "1e4e6g6m 6k4m2m0k0j2i6i",
    "0a0m 0g2e4e6g6k4m2m0k",
    "6f4e2e0g0k2m4m6l",
    "6a6m 6g4e2e0g0k2m4m6k",
    "0i6i6g4e2e0g0k2m4m6l",
    "5a4a2c2m 0e5e",
    "6e6o4q2q0p 6g4e2e0g0k2m4m6k",
    "0a0m 0g2e4e6g6m",
    "0e0m 0a0a",
    "2e2o1q0q 2a2a",
    "0a0m 6e0j 2h6m",
    "0a0k2m",
    "0e0m 0g2e3e5g5m 5g7e8e:g:m",
    "0e0m 0g2e4e6g6m",
    "2e4e6g6k4m2m0k0g2e",
    "0e0q 0g2e4e6g6k4m2m0k",
    "6e6q 6g4e2e0g0k2m4m6k",
    "0e0m 0g2e4e",
    "6f4e2e0f0g2h4i6j6k4m2m0l",
    "2b2k4m5m 0e5e",
    "0e0k2m4m6k 6e6m",
    "0e3m6e",
    "0e2m5f8m:e",
    "0e6m 6e0m",
    "0e3m 6e1q",
    "0e6e0m6m",
    "3a2a1b1f0g1h1l2m3m",
    "0a0o",
    "0a1a2b2f3g2h2l1m0m",
    "0h1g2g5i6i7h",
    "0a6a6m0m0a",
};
constexpr std::string_view kBox = kGlyphs.back();
constexpr float kSpace = 3;       // the width of a blank
constexpr float kSpacing = 2.25;  // between the pens' edges of neighbours

}  // namespace

StrokedText stroke_text(std::string_view text) {
  StrokedText result;
  float left = kPenWidth / 2;
  for (const char c : text) {
    if ((static_cast<unsigned char>(c) & 0xc0) == 0x80) continue;  // continues a character that has its box
    const std::string_view glyph = c >= ' ' && c <= '~' ? kGlyphs[static_cast<std::size_t>(c - ' ')] : kBox;
    float width = glyph.empty() ? kSpace : 0;
    bool pen_down = false;
    float x1 = 0, y1 = 0;
    for (std::size_t i = 0; i < glyph.size(); i += 2) {
      if (glyph[i] == ' ') {
        pen_down = false;
        ++i;
      }
      const auto x2 = static_cast<float>(glyph[i] - '0'), y2 = static_cast<float>(glyph[i + 1] - 'a');
      if (pen_down) result.strokes.push_back({left + x1, y1, left + x2, y2});
      width = std::max(width, x2);
      x1 = x2;
      y1 = y2;
      pen_down = true;
    }
    result.width = left + width + kPenWidth / 2;
    left = result.width + kSpacing + kPenWidth / 2;
  }
  return result;
}

}  // namespace damoyolo
