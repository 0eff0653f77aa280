#include "loader/draw.h"

#include <algorithm>
#include <cmath>

#include "loader/font.h"

namespace damoyolo {
namespace {

using Color = std::array<std::uint8_t, 3>;

constexpr Color kBlack = {0, 0, 0}, kWhite = {255, 255, 255};

// Pixels [x1, x2) × [y1, y2).
struct Rectangle {
  int x1, y1, x2, y2;
};

Rectangle clipped(const Rectangle& r, const Image& image) {
  return {std::clamp(r.x1, 0, image.width), std::clamp(r.y1, 0, image.height), std::clamp(r.x2, 0, image.width),
          std::clamp(r.y2, 0, image.height)};
}

Rectangle grown(const Rectangle& r, int by) { return {r.x1 - by, r.y1 - by, r.x2 + by, r.y2 + by}; }

// Mixes `color` into a pixel inside the image; coverage 1 replaces it.
void blend(Image& image, int x, int y, const Color& color, float coverage) {
  std::uint8_t* pixel =
      image.rgb.data() +
      (static_cast<std::size_t>(y) * static_cast<std::size_t>(image.width) + static_cast<std::size_t>(x)) * 3;
  for (std::size_t c = 0; c < 3; ++c) {
    const auto old = static_cast<float>(pixel[c]);
    pixel[c] = static_cast<std::uint8_t>(std::lround(old + (static_cast<float>(color[c]) - old) * coverage));
  }
}

void fill(Image& image, const Rectangle& rectangle, const Color& color, float coverage) {
  const Rectangle r = clipped(rectangle, image);
  for (int y = r.y1; y < r.y2; ++y) {
    for (int x = r.x1; x < r.x2; ++x) blend(image, x, y, color, coverage);
  }
}

// A frame of the given width inside the rectangle.
void frame(Image& image, const Rectangle& r, int width, const Color& color, float coverage) {
  const int top = std::min(r.y1 + width, r.y2), bottom = std::max(r.y2 - width, top);
  fill(image, {r.x1, r.y1, r.x2, top}, color, coverage);
  fill(image, {r.x1, bottom, r.x2, r.y2}, color, coverage);
  fill(image, {r.x1, top, std::min(r.x1 + width, r.x2), bottom}, color, coverage);
  fill(image, {std::max(r.x2 - width, r.x1 + width), top, r.x2, bottom}, color, coverage);
}

float distance(float x, float y, const Stroke& s) {
  const float dx = s.x2 - s.x1, dy = s.y2 - s.y1;
  const float length2 = dx * dx + dy * dy;
  const float along = length2 > 0 ? std::clamp(((x - s.x1) * dx + (y - s.y1) * dy) / length2, 0.0f, 1.0f) : 0.0f;
  return std::hypot(x - s.x1 - along * dx, y - s.y1 - along * dy);
}

// Draws text with its capitals' upper left corner at (left, top), `unit` pixels for a unit of the font. Each pixel is
// covered as far as its centre is inside the pen's track, with an edge of one pixel.
void draw_text(Image& image, const StrokedText& text, int left, int top, float unit, const Color& color) {
  const float radius = unit * kPenWidth / 2;
  for (const Stroke& stroke : text.strokes) {
    const Stroke s = {static_cast<float>(left) + stroke.x1 * unit, static_cast<float>(top) + stroke.y1 * unit,
                      static_cast<float>(left) + stroke.x2 * unit, static_cast<float>(top) + stroke.y2 * unit};
    const float reach = radius + 1;
    const Rectangle around = clipped({static_cast<int>(std::floor(std::min(s.x1, s.x2) - reach)),
                                      static_cast<int>(std::floor(std::min(s.y1, s.y2) - reach)),
                                      static_cast<int>(std::ceil(std::max(s.x1, s.x2) + reach)),
                                      static_cast<int>(std::ceil(std::max(s.y1, s.y2) + reach))},
                                     image);
    for (int y = around.y1; y < around.y2; ++y) {
      for (int x = around.x1; x < around.x2; ++x) {
        const float inside = radius - distance(static_cast<float>(x) + 0.5f, static_cast<float>(y) + 0.5f, s);
        const float coverage = std::clamp(inside + 0.5f, 0.0f, 1.0f);
        if (coverage > 0) blend(image, x, y, color, coverage);
      }
    }
  }
}

// The sizes of everything drawn, in pixels.
struct Style {
  int line, halo, padding;
  float unit;  // of the font

  explicit Style(const Image& image) {
    const float size = static_cast<float>(image.width + image.height) / 2;
    line = std::max(2, static_cast<int>(std::lround(size * 0.003f)));
    halo = std::max(1, line / 3);
    const float capital = std::max(8.0f, std::round(size * 0.015f));
    unit = capital / kCapitalHeight;
    padding = static_cast<int>(std::lround(3.5f * unit));
  }
};

// Far coordinates are cut to where nothing is seen, so that they fit an integer; not a number becomes 0.
int pixel(float value, int size) {
  const float margin = 1000;
  return std::isnan(value)
             ? 0
             : static_cast<int>(std::lround(std::clamp(value, -margin, static_cast<float>(size) + margin)));
}

Rectangle rectangle_of(const Annotation& annotation, const Image& image) {
  return {pixel(annotation.x1, image.width), pixel(annotation.y1, image.height), pixel(annotation.x2, image.width),
          pixel(annotation.y2, image.height)};
}

void draw_label(Image& image, const Annotation& annotation, const Style& style) {
  const StrokedText text = stroke_text(annotation.text);
  const Rectangle box = rectangle_of(annotation, image);
  const int width = static_cast<int>(std::ceil(text.width * style.unit)) + 2 * style.padding;
  const int height = static_cast<int>(std::lround(kCapitalHeight * style.unit)) + 2 * style.padding;
  // On top of the box, or inside it where the image ends; moved as little as keeps it in the image.
  const int left = std::max(0, std::min(box.x1, image.width - width));
  const int above = box.y1 - height;
  const int top = std::max(0, std::min(above >= 0 ? above : box.y1, image.height - height));

  const Color color = class_color(annotation.class_id);
  const float luminance = 0.299f * color[0] + 0.587f * color[1] + 0.114f * color[2];
  fill(image, {left, top, left + width, top + height}, color, 1);
  draw_text(image, text, left + style.padding, top + style.padding, style.unit, luminance > 128 ? kBlack : kWhite);
}

}  // namespace

Color class_color(int class_id) {
  // Steps of the golden ratio around the colour circle stay apart however many there are; three strengths help the
  // eye.
  struct Strength {
    double saturation, value;
  };
  constexpr Strength kStrengths[] = {{0.82, 1.0}, {0.62, 1.0}, {0.9, 0.82}};
  const auto [saturation, value] = kStrengths[static_cast<unsigned>(class_id) % 3];
  const double hue = 6 * std::fmod(0.02 + 0.6180339887498949 * static_cast<unsigned>(class_id), 1.0);
  Color color{};
  for (std::size_t c = 0; c < 3; ++c) {
    // HSV: a channel is full within a sixth of the circle either side of its hue, and empty beyond a third.
    const double offset = std::fmod(hue + 6 - 2 * static_cast<double>(c), 6.0);
    const double strength = std::clamp(2 - std::min(offset, 6 - offset), 0.0, 1.0);
    color[c] = static_cast<std::uint8_t>(std::lround(255 * value * (1 - saturation * (1 - strength))));
  }
  return color;
}

void draw(Image& image, std::span<const Annotation> annotations) {
  const Style style(image);
  for (std::size_t i = annotations.size(); i-- > 0;) {
    const Rectangle box = rectangle_of(annotations[i], image);
    // A dark rim keeps the line visible on a ground of its own colour.
    frame(image, grown(box, style.halo), style.line + 2 * style.halo, kBlack, 0.35f);
    frame(image, box, style.line, class_color(annotations[i].class_id), 1);
  }
  for (std::size_t i = annotations.size(); i-- > 0;) {
    if (!annotations[i].text.empty()) draw_label(image, annotations[i], style);
  }
}

}  // namespace damoyolo
