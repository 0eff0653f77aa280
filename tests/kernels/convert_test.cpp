#include "kernels/convert.h"

#include <limits>

#include "tests/kernels/device_tensor.h"

namespace damoyolo::kernels {
namespace {

void compare(Size size, DType from, DType to, Placement place) {
  const DeviceTensor x(from, size, place, 1), y(to, size, {place.after, place.before}, 2);
  launch_convert(x.view(), y.view(), {});
  const std::vector<float> input = x.initial(), got = y.values();
  CHECK(got == decode(encode(input, to), to));
  CHECK(y.others_untouched());
}

KERNEL_TEST_CASE("converting rounds to nearest, and widening is exact") {
  for (const Size size : {Size{1, 1, 1, 1}, Size{2, 3, 5, 24}, Size{3, 2, 3, 11}, Size{1, 5, 7, 100}})
    for (const DType type : {DType::F16, DType::BF16})
      for (const Placement place : kPlacements) {
        compare(size, type, DType::F32, place);
        compare(size, DType::F32, type, place);
      }
}

KERNEL_TEST_CASE("converting keeps what is no ordinary number") {
  const float infinity = std::numeric_limits<float>::infinity();
  const std::vector<float> values{0.f, -0.f, infinity, -infinity, 1e-40f, 1e30f, -65519.f, 65520.f};
  for (const DType type : {DType::F16, DType::BF16}) {
    const DeviceTensor x(DType::F32, {1, 1, 1, 8}, {}, values), y(type, {1, 1, 1, 8}, {}, 1);
    launch_convert(x.view(), y.view(), {});
    const std::vector<float> got = y.values(), expected = decode(encode(values, type), type);
    CHECK(got == expected);
    CHECK(std::signbit(got[1]));
  }
}

KERNEL_TEST_CASE("converting refuses what it cannot do") {
  const DeviceTensor wide(DType::F32, {1, 2, 2, 4}, {}, 1), narrow(DType::BF16, {1, 2, 2, 3}, {}, 1);
  const DeviceTensor half(DType::F16, {1, 2, 2, 4}, {}, 1), brain(DType::BF16, {1, 2, 2, 4}, {}, 1);
  CHECK_THROWS_WITH(launch_convert(wide.view(), narrow.view(), {}),
                    "kernel convert expects input and output of the same size");
  const char* const one_side = "kernel convert expects F32 on one side and a 16-bit type on the other";
  CHECK_THROWS_WITH(launch_convert(wide.view(), wide.view(), {}), one_side);
  CHECK_THROWS_WITH(launch_convert(half.view(), brain.view(), {}), one_side);
}

}  // namespace
}  // namespace damoyolo::kernels
