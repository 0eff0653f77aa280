#include "kernels/upsample.h"

#include "tests/kernels/device_tensor.h"

namespace damoyolo::kernels {
namespace {

void compare(Size size, DType type, Placement place, bool add, Activation act) {
  const auto& [n, h, w, c] = size;
  const Size big{n, 2 * h, 2 * w, c};
  const DeviceTensor x(type, size, place, 1), other(type, big, {place.after, place.before}, 2);
  const DeviceTensor y(type, big, place, 3);
  launch_upsample(x.view(), add ? other.view() : TensorView{}, y.view(), act, {});

  const auto input = x.initial(), addend = other.initial(), got = y.values();
  std::size_t i = 0;
  for (int image = 0; image < n; ++image)
    for (int row = 0; row < 2 * h; ++row)
      for (int column = 0; column < 2 * w; ++column)
        for (int channel = 0; channel < c; ++channel, ++i) {
          const double value = input[((image * h + row / 2) * w + column / 2) * c + channel];
          const double want = activated(value + (add ? addend[i] : 0), act);
          if (!add && act == Activation::None) REQUIRE(got[i] == want);
          REQUIRE(std::abs(got[i] - want) <= rounding_bound(type, want, 4));
        }
  CHECK(y.others_untouched());
}

KERNEL_TEST_CASE("upsampling repeats pixels and adds") {
  for (const Size size : {Size{1, 1, 1, 1}, Size{2, 3, 5, 24}, Size{3, 2, 3, 11}})
    for (const DType type : kStorageTypes)
      for (const Placement place : kPlacements) {
        compare(size, type, place, false, Activation::None);
        compare(size, type, place, true, Activation::None);
        compare(size, type, place, true, Activation::Silu);
      }
}

KERNEL_TEST_CASE("upsampling adds to what the output holds") {
  const DeviceTensor x(DType::F32, {1, 2, 2, 4}, {}, 1), y(DType::F32, {1, 4, 4, 4}, {4, 4}, 2);
  launch_upsample(x.view(), y.view(), y.view(), Activation::None, {});
  CHECK(y.values()[0] == y.initial()[0] + x.initial()[0]);
  CHECK(y.values().back() == y.initial().back() + x.initial().back());
  CHECK(y.others_untouched());
  CHECK_THROWS_WITH(launch_upsample(y.view(), {}, x.view(), Activation::None, {}),
                    "kernel upsample expects an output of the input's type and twice its height and width");
}

}  // namespace
}  // namespace damoyolo::kernels
