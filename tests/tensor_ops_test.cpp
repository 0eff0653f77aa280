#include "engine/cpu/tensor_ops.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>

#include "tests/golden_generator.h"

using namespace damoyolo;
using cpu::Channels;

namespace {

// A tensor with `total` channels, of which a view takes some; values are small integers, exact in both types.
struct Map {
  Map(Shape shape, int total, int offset, DType dtype, std::uint64_t seed = 1)
      : view{nullptr, shape, total, dtype}, bytes(static_cast<std::size_t>(shape.pixels() * total) * size_of(dtype)) {
    for (std::size_t i = 0; i < bytes.size() / size_of(dtype); ++i)
      put(i, static_cast<float>(static_cast<int>(golden_bits(seed, i) % 201) - 100));
    view.data = bytes.data() + static_cast<std::size_t>(offset) * size_of(dtype);
  }
  void put(std::size_t i, float value) {
    if (view.dtype == DType::F32)
      reinterpret_cast<float*>(bytes.data())[i] = value;
    else
      reinterpret_cast<std::uint16_t*>(bytes.data())[i] = bf16_from_float(value);
  }
  float at(int n, int y, int x, int c) const {
    const std::int64_t pixel = (std::int64_t{n} * view.shape.h + y) * view.shape.w + x;
    return element_as_float(
        view.data + (pixel * view.pixel_stride + c) * static_cast<std::int64_t>(size_of(view.dtype)), view.dtype);
  }

  Channels view;
  std::vector<std::byte> bytes;
};

template <typename Check>
void for_each_element(const Shape& shape, Check check) {
  for (int n = 0; n < shape.n; ++n)
    for (int y = 0; y < shape.h; ++y)
      for (int x = 0; x < shape.w; ++x)
        for (int c = 0; c < shape.c; ++c) check(n, y, x, c);
}

constexpr Shape kShapes[] = {{1, 1, 1, 3}, {2, 3, 7, 40}, {1, 13, 2, 33}, {1, 20, 9, 64}};

}  // namespace

TEST_CASE("the three pools are the maxima of 5, 9 and 13 pixels around") {
  for (const DType dtype : {DType::F32, DType::BF16})
    for (const Shape& shape : kShapes) {
      const Map source(shape, shape.c + 5, 2, dtype);
      Map target({shape.n, shape.h, shape.w, 3 * shape.c}, 3 * shape.c + 4, 3, dtype, 2);
      const std::vector<std::byte> before = target.bytes;
      cpu::spp_pool(source.view, target.view);
      for (int pool = 0; pool < 3; ++pool)
        for_each_element(shape, [&](int n, int y, int x, int c) {
          const int reach = 2 * (pool + 1);
          float expected = -1000.f;
          for (int sy = std::max(0, y - reach); sy <= std::min(shape.h - 1, y + reach); ++sy)
            for (int sx = std::max(0, x - reach); sx <= std::min(shape.w - 1, x + reach); ++sx)
              expected = std::max(expected, source.at(n, sy, sx, c));
          CHECK(target.at(n, y, x, pool * shape.c + c) == expected);
        });
      CHECK(std::equal(target.bytes.begin(), target.bytes.begin() + 3 * static_cast<int>(size_of(dtype)),
                       before.begin()));  // channels before the view
    }
}

TEST_CASE("SiLU is x over one plus e to the minus x") {
  for (const Shape& shape : kShapes) {
    const Map source(shape, shape.c, 0, DType::F32, 6);
    Map target = source;
    target.view.data = target.bytes.data();
    cpu::silu(target.view);
    for_each_element(shape, [&](int n, int y, int x, int c) {
      const double value = source.at(n, y, x, c), expected = activated(value, Activation::Silu);
      CHECK(std::abs(target.at(n, y, x, c) - expected) <= 4e-7 * std::abs(expected) + 1e-35);
    });
  }
}

TEST_CASE("assembling copies or adds channels") {
  for (const DType dtype : {DType::F32, DType::BF16})
    for (const Shape& shape : kShapes) {
      const Map source(shape, shape.c + 1, 1, dtype, 3), residual(shape, shape.c + 2, 0, dtype, 4);
      Map target(shape, shape.c + 9, 9, dtype, 5);
      cpu::assemble(source.view, {}, target.view);
      for_each_element(shape,
                       [&](int n, int y, int x, int c) { CHECK(target.at(n, y, x, c) == source.at(n, y, x, c)); });
      cpu::assemble(source.view, residual.view, target.view);
      for_each_element(shape, [&](int n, int y, int x, int c) {
        CHECK(target.at(n, y, x, c) == source.at(n, y, x, c) + residual.at(n, y, x, c));
      });
    }
}

TEST_CASE("upsampling repeats every pixel") {
  for (const DType from : {DType::F32, DType::BF16})
    for (const DType to : {DType::F32, DType::BF16})
      for (const Shape& shape : kShapes) {
        const Map source(shape, shape.c, 0, from);
        Map target({shape.n, 2 * shape.h, 2 * shape.w, shape.c}, shape.c + 3, 1, to, 2);
        cpu::upsample(source.view, target.view);
        for_each_element(target.view.shape, [&](int n, int y, int x, int c) {
          CHECK(target.at(n, y, x, c) == source.at(n, y / 2, x / 2, c));
        });
      }
}

TEST_CASE("assembling converts, and rounds to nearest") {
  for (const Shape& shape : kShapes) {
    Map source(shape, shape.c + 1, 1, DType::F32, 6), rounded(shape, shape.c + 2, 2, DType::BF16, 7);
    for (std::size_t i = 0; i < source.bytes.size() / size_of(DType::F32); ++i)
      source.put(i, golden_uniform(6, i) - 0.5f);
    cpu::assemble(source.view, {}, rounded.view);
    for_each_element(shape, [&](int n, int y, int x, int c) {
      CHECK(rounded.at(n, y, x, c) == float_from_bf16(bf16_from_float(source.at(n, y, x, c))));
    });
    cpu::assemble(rounded.view, {}, source.view);
    for_each_element(shape,
                     [&](int n, int y, int x, int c) { CHECK(source.at(n, y, x, c) == rounded.at(n, y, x, c)); });
  }
}

TEST_CASE("casting keeps the pixels, and Focus goes down before it goes right") {
  const std::vector<std::uint8_t> image = golden_bytes("image", 2 * 6 * 4 * 3);
  const auto pixel = [&](int n, int y, int x, int c) {
    return static_cast<float>(image[static_cast<std::size_t>(((n * 6 + y) * 4 + x) * 3 + c)]);
  };
  for (const DType dtype : {DType::F32, DType::BF16}) {
    Map plain({2, 6, 4, 3}, 3, 0, dtype);
    cpu::cast(image.data(), plain.view, false);
    for_each_element(plain.view.shape,
                     [&](int n, int y, int x, int c) { CHECK(plain.at(n, y, x, c) == pixel(n, y, x, c)); });
    Map focus({2, 3, 2, 12}, 12, 0, dtype);
    cpu::cast(image.data(), focus.view, true);
    constexpr int kRow[] = {0, 1, 0, 1}, kColumn[] = {0, 0, 1, 1};
    for_each_element(focus.view.shape, [&](int n, int y, int x, int c) {
      CHECK(focus.at(n, y, x, c) == pixel(n, 2 * y + kRow[c / 3], 2 * x + kColumn[c / 3], c % 3));
    });
  }
}
