#include "kernels/spp_pool.h"

#include "tests/kernels/device_tensor.h"

namespace damoyolo::kernels {
namespace {

// Pools are exact: whatever the type, the largest input comes out unchanged.
void compare(const std::vector<float>& input, const std::vector<float>& got, Size size) {
  const auto& [n, h, w, c] = size;
  for (int pixel = 0; pixel < n * h * w; ++pixel) {
    const int column = pixel % w, row = pixel / w % h, image = pixel / (w * h);
    for (int pool = 0; pool < 3; ++pool) {
      const int reach = 2 + 2 * pool;
      for (int channel = 0; channel < c; ++channel) {
        float largest = -INFINITY;
        for (int y = std::max(row - reach, 0); y <= std::min(row + reach, h - 1); ++y)
          for (int x = std::max(column - reach, 0); x <= std::min(column + reach, w - 1); ++x)
            largest = std::max(largest, input[((image * h + y) * w + x) * c + channel]);
        REQUIRE(got[(pixel * 3 + pool) * c + channel] == largest);
      }
    }
  }
}

KERNEL_TEST_CASE("SPP pooling is three max-pools side by side") {
  for (const Size size : {Size{1, 1, 1, 1}, Size{2, 5, 4, 8}, Size{1, 20, 20, 3}, Size{1, 23, 41, 9}})
    for (const DType type : kStorageTypes)
      for (const Placement place : kPlacements) {
        const DeviceTensor x(type, size, place, 1);
        const DeviceTensor y(type, {size.n, size.h, size.w, 3 * size.c}, {place.after, place.before}, 2);
        launch_spp_pool(x.view(), y.view(), {});
        compare(x.initial(), y.values(), size);
        CHECK(y.others_untouched());
      }
}

KERNEL_TEST_CASE("SPP pooling writes beside its input in one buffer") {
  const Size size{2, 6, 7, 8};
  const DeviceTensor buffer(DType::BF16, {2, 6, 7, 32}, {}, 1);
  TensorView x = buffer.view(), y = buffer.view();
  x.c = 8;
  y.c = 24;
  y.channel_offset = 8;
  launch_spp_pool(x, y, {});
  std::vector<float> input, pooled;
  const auto values = buffer.values(), initial = buffer.initial();
  for (std::size_t i = 0; i < values.size(); ++i) {
    (i % 32 < 8 ? input : pooled).push_back(values[i]);
    if (i % 32 < 8) CHECK(values[i] == initial[i]);
  }
  compare(input, pooled, size);
  CHECK_THROWS_WITH(launch_spp_pool(x, x, {}),
                    "kernel spp_pool expects an output of the input's type and size with three times its channels");
}

}  // namespace
}  // namespace damoyolo::kernels
