#include "loader/draw.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>
#include <vector>

#include "loader/font.h"

using namespace damoyolo;

namespace {

using Color = std::array<std::uint8_t, 3>;

Image grey_image(int width, int height) {
  return {width, height, std::vector<std::uint8_t>(static_cast<std::size_t>(width * height * 3), 128)};
}

Color at(const Image& image, int x, int y) {
  const std::uint8_t* pixel = &image.rgb[static_cast<std::size_t>(3 * (y * image.width + x))];
  return {pixel[0], pixel[1], pixel[2]};
}

constexpr Color kGrey = {128, 128, 128};

}  // namespace

TEST_CASE("draw: a box is its outline and nothing else") {
  Image image = grey_image(100, 80);
  const std::vector<Annotation> boxes = {{20, 10, 60, 50, "", 4}};
  draw(image, boxes);
  const Color color = class_color(4);
  for (const auto& [x, y] :
       {std::array{20, 10}, {59, 10}, {20, 49}, {59, 49}, {21, 30}, {58, 30}, {40, 11}, {40, 48}}) {
    CHECK(at(image, x, y) == color);
  }
  CHECK(at(image, 40, 30) == kGrey);
  CHECK(at(image, 17, 30) == kGrey);
  CHECK(at(image, 63, 30) == kGrey);
  CHECK(at(image, 19, 30)[0] < 128);  // the dark rim
  CHECK(at(image, 22, 30)[0] < 128);
}

TEST_CASE("draw: of two boxes the first is on top") {
  Image image = grey_image(100, 80);
  const std::vector<Annotation> boxes = {{20, 10, 60, 50, "", 1}, {20, 10, 80, 70, "", 2}};
  draw(image, boxes);
  CHECK(at(image, 20, 10) == class_color(1));
  CHECK(at(image, 20, 69) == class_color(2));
}

TEST_CASE("draw: a label is inside the image wherever its box is") {
  for (const auto& [x, y] : {std::array{-50.f, -50.f}, {0.f, 0.f}, {190.f, 5.f}, {150.f, 95.f}, {500.f, 500.f}}) {
    Image image = grey_image(200, 100);
    const std::vector<Annotation> boxes = {{x, y, x + 20, y + 20, "cat 0.5", 7}};
    draw(image, boxes);
    int filled = 0;
    for (int i = 0; i < 200 * 100; ++i) filled += at(image, i % 200, i / 200) == class_color(7);
    CHECK(filled > 300);
  }
}

TEST_CASE("draw: any coordinates and any text on any image are safe") {
  const float infinity = std::numeric_limits<float>::infinity(), nan = std::numeric_limits<float>::quiet_NaN();
  const std::vector<Annotation> boxes = {
      {-infinity, -1e30f, infinity, 1e30f, "everything", 0},
      {nan, nan, nan, nan, "nowhere", -1},
      {5, 5, 1, 1, "inside out", 1},
      {0, 0, 0, 0, std::string(1000, 'W'), 2147483647},
      {1, 1, 2, 2, "\xff\xc3 \x80\n\t\x7f", 3},
  };
  for (const auto& [width, height] : {std::array{1, 1}, {20000, 10}, {3, 900}, {64, 64}}) {
    Image image = grey_image(width, height);
    draw(image, boxes);
    CHECK(image.rgb.size() == static_cast<std::size_t>(width * height * 3));
  }
}

TEST_CASE("draw: neighbouring classes have colors far apart") {
  for (int i = 0; i < 100; ++i) {
    for (int j = i + 1; j < i + 4; ++j) {
      const Color a = class_color(i), b = class_color(j);
      int distance = 0;
      for (std::size_t c = 0; c < 3; ++c) distance = std::max(distance, std::abs(a[c] - b[c]));
      CHECK(distance >= 40);
    }
  }
}

TEST_CASE("font: every printable character is different, and keeps to its lines") {
  std::set<std::vector<float>> seen;
  for (char c = '!'; c <= '~'; ++c) {
    CAPTURE(c);
    const StrokedText text = stroke_text({&c, 1});
    CHECK_FALSE(text.strokes.empty());
    std::vector<float> lines;
    for (const Stroke& stroke : text.strokes) {
      lines.insert(lines.end(), {stroke.x1, stroke.y1, stroke.x2, stroke.y2});
      for (const float x : {stroke.x1, stroke.x2}) {
        CHECK(x >= kPenWidth / 2);
        CHECK(x <= text.width - kPenWidth / 2);
      }
      for (const float y : {stroke.y1, stroke.y2}) {
        CHECK(y >= 0);
        CHECK(y <= kCapitalHeight + kDescent);
      }
    }
    CHECK(seen.insert(lines).second);
  }
}

TEST_CASE("font: a character beyond ASCII is one box, however many bytes it has") {
  const std::size_t box = stroke_text("\x01").strokes.size();
  CHECK(stroke_text("\xc3\xa4").strokes.size() == box);
  CHECK(stroke_text("\xf0\x9f\x90\x88").strokes.size() == box);
  CHECK(stroke_text(" ").strokes.empty());
  CHECK(stroke_text("").width == 0);
  CHECK(stroke_text("ab").width > stroke_text("a").width + stroke_text("b").width);
}
