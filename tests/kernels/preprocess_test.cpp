#include "kernels/preprocess.h"

#include <memory>

#include "engine/cpu/resize.h"
#include "tests/kernels/device_tensor.h"

namespace damoyolo::kernels {
namespace {

struct Picture {
  int width, height;
  std::vector<std::uint8_t> rgb;
};

Picture random_picture(int width, int height, unsigned seed) {
  std::mt19937 generator(seed);
  Picture picture{width, height, std::vector<std::uint8_t>(static_cast<std::size_t>(width * height * 3))};
  for (auto& value : picture.rgb) value = static_cast<std::uint8_t>(generator() >> 24);
  return picture;
}

std::vector<std::uint8_t> resized(const Picture& picture, int width, int height) {
  std::vector<std::uint8_t> out(static_cast<std::size_t>(width * height * 3));
  resize_bilinear(ImageView(picture.width, picture.height, picture.rgb.data()), width, height, out.data());
  return out;
}

// Channel `channel` of pixel (row, column) of the network's input, as a function of network pixels.
template <typename Pixel>
int expected(PixelLayout layout, int row, int column, int channel, Pixel pixel) {
  if (layout == PixelLayout::Rgb) return channel < 3 ? pixel(row, column, channel) : 0;
  const int part = channel / 3;
  return channel < 12 ? pixel(2 * row + part % 2, 2 * column + part / 2, channel % 3) : 0;
}

void compare(DType type, PixelLayout layout, Size size, Placement place) {
  const int block = layout == PixelLayout::SpaceToDepth ? 2 : 1;
  const int net_h = size.h * block, net_w = size.w * block;
  const int widths[] = {net_w, 37, 1, 2 * net_w + 3}, heights[] = {net_h, 5, 1, 3 * net_h};
  std::vector<Picture> pictures;
  std::vector<std::unique_ptr<DeviceArray<std::uint8_t>>> pixels;
  std::vector<Image> images;
  for (int i = 0; i < size.n; ++i) {
    pictures.push_back(random_picture(widths[i % 4], heights[i % 4], static_cast<unsigned>(i)));
    pixels.push_back(std::make_unique<DeviceArray<std::uint8_t>>(pictures.back().rgb));
    images.push_back({pixels.back()->data(), pictures.back().width, pictures.back().height});
  }
  const DeviceArray<Image> device_images(images);
  const DeviceTensor y(type, size, place, 7);
  launch_preprocess(device_images.data(), y.view(), layout, {});

  const auto got = y.values();
  std::size_t i = 0;
  for (int image = 0; image < size.n; ++image) {
    const auto network_pixels = resized(pictures[static_cast<std::size_t>(image)], net_w, net_h);
    for (int row = 0; row < size.h; ++row)
      for (int column = 0; column < size.w; ++column)
        for (int channel = 0; channel < size.c; ++channel, ++i) {
          const int want = expected(layout, row, column, channel, [&](int r, int c, int color) {
            return network_pixels[static_cast<std::size_t>((r * net_w + c) * 3 + color)];
          });
          REQUIRE(got[i] == static_cast<float>(want));  // 0..255 is exact in every type
        }
  }
  CHECK(y.others_untouched());
}

KERNEL_TEST_CASE("preprocessing resizes images of all sizes bit for bit as the host") {
  for (const DType type : kStorageTypes)
    for (const Placement place : kPlacements) {
      compare(type, PixelLayout::Rgb, {4, 9, 35, 3}, place);
      compare(type, PixelLayout::Rgb, {2, 4, 6, 8}, place);
      compare(type, PixelLayout::SpaceToDepth, {4, 9, 34, 12}, place);
      compare(type, PixelLayout::SpaceToDepth, {2, 3, 5, 16}, place);
      compare(type, PixelLayout::SpaceToDepth, {1, 1, 1, 37}, place);
    }
}

KERNEL_TEST_CASE("preprocessing one image does not depend on the rest of the batch") {
  const Picture picture = random_picture(50, 21, 1), other = random_picture(3, 80, 2);
  const DeviceArray<std::uint8_t> pixels(picture.rgb), other_pixels(other.rgb);
  const Image image{pixels.data(), 50, 21}, other_image{other_pixels.data(), 3, 80};
  const DeviceArray<Image> alone({image}), together({other_image, image, other_image});
  const DeviceTensor y1(DType::BF16, {1, 8, 8, 16}, {}, 1), y3(DType::BF16, {3, 8, 8, 16}, {}, 2);
  launch_preprocess(alone.data(), y1.view(), PixelLayout::SpaceToDepth, {});
  launch_preprocess(together.data(), y3.view(), PixelLayout::SpaceToDepth, {});
  const auto one = y1.values(), three = y3.values();
  CHECK(std::equal(one.begin(), one.end(), three.begin() + static_cast<std::ptrdiff_t>(one.size())));
}

KERNEL_TEST_CASE("an unused place in the batch becomes zeros") {
  const DeviceArray<Image> images({Image{}});
  const DeviceTensor y(DType::F16, {1, 5, 5, 12}, {3, 1}, 1);
  launch_preprocess(images.data(), y.view(), PixelLayout::SpaceToDepth, {});
  for (const float value : y.values()) CHECK(value == 0);
  CHECK(y.others_untouched());
}

KERNEL_TEST_CASE("casting keeps the pixels and agrees with a resize to their own size") {
  for (const DType type : kStorageTypes)
    for (const PixelLayout layout : {PixelLayout::Rgb, PixelLayout::SpaceToDepth}) {
      const bool deep = layout == PixelLayout::SpaceToDepth;
      const Size size{2, 5, 35, deep ? 16 : 3};
      const int net_h = size.h * (deep ? 2 : 1), net_w = size.w * (deep ? 2 : 1);
      const Picture both = random_picture(net_w, 2 * net_h, 3);  // one above the other
      const DeviceArray<std::uint8_t> pixels(both.rgb);
      const DeviceArray<Image> images(
          {Image{pixels.data(), net_w, net_h}, Image{pixels.data() + both.rgb.size() / 2, net_w, net_h}});
      const DeviceTensor y(type, size, {8, 0}, 1), z(type, size, {}, 2);
      launch_cast(pixels.data(), y.view(), layout, {});
      launch_preprocess(images.data(), z.view(), layout, {});
      const auto got = y.values();
      CHECK(got == z.values());
      CHECK(y.others_untouched());
      std::size_t i = 0;
      for (int image = 0; image < 2; ++image)
        for (int row = 0; row < size.h; ++row)
          for (int column = 0; column < size.w; ++column)
            for (int channel = 0; channel < size.c; ++channel, ++i)
              REQUIRE(got[i] ==
                      static_cast<float>(expected(layout, row, column, channel, [&](int r, int c, int color) {
                        return both.rgb[((image * net_h + r) * net_w + c) * 3 + color];
                      })));
    }
}

KERNEL_TEST_CASE("preprocessing refuses an output too narrow for its pixels") {
  const DeviceArray<Image> images({Image{}});
  const DeviceTensor y(DType::F32, {1, 4, 4, 8}, {}, 1);
  CHECK_THROWS_WITH(launch_preprocess(images.data(), y.view(), PixelLayout::SpaceToDepth, {}),
                    "kernel preprocess expects an output wide enough for its pixels");
  CHECK_THROWS_WITH(launch_cast(nullptr, y.view(), PixelLayout::Rgb, {}), "kernel cast expects pixels");
}

}  // namespace
}  // namespace damoyolo::kernels
