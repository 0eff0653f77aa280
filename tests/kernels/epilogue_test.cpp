#include "kernels/epilogue.h"

#include <cmath>
#include <limits>

#include "tests/kernels/device_tensor.h"

namespace damoyolo::kernels {
namespace {

enum class Residual { None, Same, Half };

struct Case {
  Size size;
  Activation act;
  bool bias;
  Residual residual;
  bool residual_first;
};

const Case kCases[] = {
    {{1, 1, 1, 1}, Activation::None, false, Residual::None, true},
    {{2, 3, 5, 8}, Activation::Relu, true, Residual::Same, true},
    {{1, 4, 6, 21}, Activation::Silu, true, Residual::Half, true},
    {{3, 2, 2, 16}, Activation::Silu, false, Residual::Same, false},
    {{2, 4, 2, 9}, Activation::Relu, true, Residual::Half, false},
    {{1, 7, 5, 80}, Activation::None, true, Residual::None, true},
};

void compare(const Case& test, DType in, DType out, Placement place, Placement residual_place) {
  const auto& [n, h, w, c] = test.size;
  const int shift = test.residual == Residual::Half ? 1 : 0;
  const DeviceTensor x(in, test.size, place, 1), y(out, test.size, {place.after, place.before}, 2);
  const DeviceTensor r(in, {n, h >> shift, w >> shift, c}, residual_place, 3);
  const auto bias = random_values(static_cast<std::size_t>(c), 5);
  const DeviceArray<float> device_bias(bias);
  Epilogue epilogue{test.bias ? device_bias.data() : nullptr, test.act, {}, test.residual_first};
  if (test.residual != Residual::None) epilogue.residual = r.view();
  launch_epilogue(x.view(), y.view(), epilogue, {});

  const auto input = x.initial(), residual = r.initial(), got = y.values();
  std::size_t i = 0;
  for (int image = 0; image < n; ++image)
    for (int row = 0; row < h; ++row)
      for (int column = 0; column < w; ++column)
        for (int channel = 0; channel < c; ++channel, ++i) {
          const int source = (image * (h >> shift) + (row >> shift)) * (w >> shift) + (column >> shift);
          const double add = test.residual == Residual::None ? 0 : residual[source * c + channel];
          const double sum = double{input[i]} + (test.bias ? bias[channel] : 0);
          const double want = test.residual_first ? activated(sum + add, test.act) : activated(sum, test.act) + add;
          REQUIRE(std::abs(got[i] - want) <= rounding_bound(out, want, 6));
        }
  CHECK(y.others_untouched());
}

KERNEL_TEST_CASE("epilogue adds bias and residual, activates and casts") {
  for (const Case& test : kCases)
    for (const DType type : kStorageTypes)
      for (const Placement place : kPlacements)
        for (const Placement residual_place : kPlacements) {
          compare(test, type, type, place, residual_place);
          compare(test, type, DType::F32, place, residual_place);
          compare(test, DType::F32, type, place, residual_place);
        }
}

KERNEL_TEST_CASE("an empty epilogue converts: widening is exact, narrowing rounds to nearest") {
  const auto converts = [](Size size, DType from, DType to, Placement place) {
    const DeviceTensor x(from, size, place, 1), y(to, size, {place.after, place.before}, 2);
    launch_epilogue(x.view(), y.view(), {}, {});
    CHECK(y.values() == decode(encode(x.initial(), to), to));
    CHECK(y.others_untouched());
  };
  for (const Size size : {Size{1, 1, 1, 1}, Size{2, 3, 5, 24}, Size{3, 2, 3, 11}, Size{1, 5, 7, 100}})
    for (const DType type : {DType::F16, DType::BF16})
      for (const Placement place : kPlacements) {
        converts(size, type, DType::F32, place);
        converts(size, DType::F32, type, place);
      }
}

KERNEL_TEST_CASE("converting keeps what is no ordinary number") {
  const float infinity = std::numeric_limits<float>::infinity();
  const std::vector<float> values{0.f, -0.f, infinity, -infinity, 1e-40f, 1e30f, -65519.f, 65520.f};
  for (const DType type : {DType::F16, DType::BF16}) {
    const DeviceTensor x(DType::F32, {1, 1, 1, 8}, {}, values), y(type, {1, 1, 1, 8}, {}, 1);
    launch_epilogue(x.view(), y.view(), {}, {});
    CHECK(y.values() == decode(encode(values, type), type));
    CHECK(std::signbit(y.values()[1]));
  }
}

KERNEL_TEST_CASE("epilogue works in place") {
  const DeviceTensor x(DType::BF16, {2, 3, 3, 12}, {4, 4}, 1);
  const auto before = x.initial();
  launch_epilogue(x.view(), x.view(), {nullptr, Activation::Relu, {}, true}, {});
  const auto after = x.values();
  for (std::size_t i = 0; i < before.size(); ++i) CHECK(after[i] == std::max(before[i], 0.0f));
  CHECK(x.others_untouched());
}

KERNEL_TEST_CASE("epilogue refuses sizes and types that do not fit") {
  const DeviceTensor x(DType::BF16, {1, 2, 2, 8}, {}, 1), wide(DType::BF16, {1, 2, 4, 8}, {}, 2);
  const DeviceTensor half(DType::F16, {1, 2, 2, 8}, {}, 2);
  CHECK_THROWS_WITH(launch_epilogue(x.view(), wide.view(), {}, {}),
                    "kernel epilogue expects input and output of the same size");
  CHECK_THROWS_WITH(launch_epilogue(x.view(), half.view(), {}, {}),
                    "kernel epilogue expects input and output of one type, or one of them F32");
  TensorView outside = x.view();
  outside.channel_offset = 1;
  CHECK_THROWS_WITH(launch_epilogue(outside, x.view(), {}, {}),
                    "kernel epilogue expects channels inside the width of their buffer");
  CHECK_THROWS_WITH(launch_epilogue({}, x.view(), {}, {}), "kernel epilogue expects a tensor with data");
}

}  // namespace
}  // namespace damoyolo::kernels
