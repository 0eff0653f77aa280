#include "engine/cpu/resize.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <set>
#include <string>
#include <vector>

#include "tests/golden_generator.h"
#include "weights/safetensors.h"

using namespace damoyolo;

namespace {

std::vector<std::uint8_t> resized(const std::vector<std::uint8_t>& rgb, int width, int height, int to_width,
                                  int to_height) {
  std::vector<std::uint8_t> out(static_cast<std::size_t>(to_width) * static_cast<std::size_t>(to_height) * 3);
  resize_bilinear(ImageView(width, height, rgb.data()), to_width, to_height, out.data());
  return out;
}

}  // namespace

TEST_CASE("resize: OpenCV's pixels") {
  // Where OpenCV rounds the position to float32 before taking the fraction, a few pixels are one level off.
  const std::set<std::string> inexact = {"333x500_to_416x416", "37x53_to_64x64"};
  const SafetensorsFile goldens("tests/data/resize.safetensors");
  CHECK(goldens.contents().tensors.size() == 10);
  for (const auto& entry : goldens.contents().tensors) {
    const std::string& name = entry.first;
    const TensorView& tensor = entry.second;
    CAPTURE(name);
    int height = 0, width = 0, to_height = 0, to_width = 0;
    REQUIRE(std::sscanf(name.c_str(), "%dx%d_to_%dx%d", &height, &width, &to_height, &to_width) == 4);
    const std::string input = "resize:" + std::to_string(height) + "x" + std::to_string(width);
    const std::size_t bytes = static_cast<std::size_t>(height) * static_cast<std::size_t>(width) * 3;
    const std::vector<std::uint8_t> out = resized(golden_bytes(input, bytes), width, height, to_width, to_height);
    REQUIRE(out.size() == tensor.bytes.size());
    std::size_t different = 0;
    int difference = 0;
    for (std::size_t i = 0; i < out.size(); ++i) {
      const int levels = std::abs(out[i] - std::to_integer<int>(tensor.bytes[i]));
      difference = std::max(difference, levels);
      different += levels > 0;
    }
    CHECK(difference <= (inexact.contains(name) ? 1 : 0));
    CHECK(static_cast<double>(different) <= 0.005 * static_cast<double>(out.size()));
  }
}

TEST_CASE("resize: to its own size is a copy") {
  const std::vector<std::uint8_t> rgb = golden_bytes("copy", 31 * 17 * 3);
  CHECK(resized(rgb, 31, 17, 31, 17) == rgb);
}

TEST_CASE("resize: one color stays that color at any size") {
  struct Size {
    int width, height;
  };
  constexpr Size kSizes[] = {{1, 1}, {20000, 10}, {1, 700}, {2, 3}, {5, 1}, {640, 64}, {33, 200}};
  for (const Size& from : kSizes) {
    std::vector<std::uint8_t> rgb;
    for (int i = 0; i < from.width * from.height; ++i) rgb.insert(rgb.end(), {255, 0, 77});
    for (const Size& to : kSizes) {
      const std::vector<std::uint8_t> out = resized(rgb, from.width, from.height, to.width, to.height);
      std::size_t others = 0;
      for (std::size_t i = 0; i < out.size(); i += 3) others += out[i] != 255 || out[i + 1] != 0 || out[i + 2] != 77;
      CAPTURE(from.width);
      CAPTURE(to.width);
      CHECK(others == 0);
    }
  }
}

TEST_CASE("resize: doubling puts pixels a quarter of the way between their neighbours") {
  // Two grey pixels, 0 and 100: the outer ones are beyond the last centres and keep the edge's value.
  const std::vector<std::uint8_t> rgb = {0, 0, 0, 100, 100, 100};
  CHECK(resized(rgb, 2, 1, 4, 1) == std::vector<std::uint8_t>{0, 0, 0, 25, 25, 25, 75, 75, 75, 100, 100, 100});
}

TEST_CASE("resize: bands of rows do not show") {
  // The upper rows of a tall result are the same as when the result ends there, in its first band.
  const std::vector<std::uint8_t> rgb = golden_bytes("bands", 40 * 400 * 3);
  const std::vector<std::uint8_t> tall = resized(rgb, 40, 400, 24, 200);
  const std::vector<std::uint8_t> upper = resized(rgb, 40, 400 / 4, 24, 200 / 4);
  CHECK(std::equal(upper.begin(), upper.end(), tall.begin()));
}
