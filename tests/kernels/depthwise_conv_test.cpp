#include "kernels/depthwise_conv.h"

#include "tests/kernels/device_tensor.h"

namespace damoyolo::kernels {
namespace {

struct Case {
  Size size;
  int kernel, stride;
  Activation act;
  bool bias, residual;
};

const Case kCases[] = {
    {{2, 5, 7, 8}, 3, 1, Activation::Relu, true, false},  {{1, 1, 1, 1}, 5, 2, Activation::None, false, false},
    {{1, 6, 9, 24}, 5, 1, Activation::Silu, true, true},  {{3, 4, 5, 13}, 3, 2, Activation::Silu, true, true},
    {{2, 9, 10, 20}, 5, 2, Activation::None, true, true}, {{1, 2, 3, 40}, 3, 1, Activation::None, false, true},
};

void compare(const Case& test, DType type, Placement place, Placement residual_place) {
  const auto& [n, h, w, c] = test.size;
  const int k = test.kernel, s = test.stride;
  const Size out{n, (h + s - 1) / s, (w + s - 1) / s, c};
  const DeviceTensor x(type, test.size, place, 1), y(type, out, place, 2), r(type, out, residual_place, 3);
  const auto weights = decode(encode(random_values(static_cast<std::size_t>(k * k * c), 4, 0.5f), type), type);
  const DeviceArray<std::byte> device_weights(encode(weights, type));
  const auto bias = random_values(static_cast<std::size_t>(c), 5);
  const DeviceArray<float> device_bias(bias);

  Epilogue epilogue{test.bias ? device_bias.data() : nullptr, test.act, {}, false};
  if (test.residual) epilogue.residual = r.view();
  launch_depthwise_conv(x.view(), device_weights.data(), k, s, y.view(), epilogue, {});

  const auto input = x.initial(), residual = r.initial(), got = y.values();
  std::size_t i = 0;
  for (int image = 0; image < n; ++image)
    for (int row = 0; row < out.h; ++row)
      for (int column = 0; column < out.w; ++column)
        for (int channel = 0; channel < c; ++channel, ++i) {
          double sum = test.bias ? bias[channel] : 0, terms = std::abs(sum);
          for (int ky = 0; ky < k; ++ky)
            for (int kx = 0; kx < k; ++kx) {
              const int iy = row * s + ky - k / 2, ix = column * s + kx - k / 2;
              if (iy < 0 || iy >= h || ix < 0 || ix >= w) continue;
              const double term =
                  double{input[((image * h + iy) * w + ix) * c + channel]} * weights[(ky * k + kx) * c + channel];
              sum += term;
              terms += std::abs(term);
            }
          const double want = activated(sum, test.act) + (test.residual ? residual[i] : 0);
          REQUIRE(std::abs(got[i] - want) <= rounding_bound(type, want, terms + 2));
        }
  CHECK(y.others_untouched());
}

KERNEL_TEST_CASE("depthwise convolution is the sum over its taps") {
  for (const Case& test : kCases)
    for (const DType type : kStorageTypes)
      for (const Placement place : kPlacements)
        for (const Placement residual_place : kPlacements) compare(test, type, place, residual_place);
}

KERNEL_TEST_CASE("depthwise convolution refuses what does not fit") {
  const DeviceTensor x(DType::F32, {1, 4, 4, 8}, {}, 1), y(DType::F32, {1, 4, 4, 8}, {}, 2);
  const DeviceTensor narrow(DType::F32, {1, 4, 4, 4}, {}, 2), half(DType::F16, {1, 4, 4, 8}, {}, 2);
  const DeviceArray<float> weights(9 * 8);
  CHECK_THROWS_WITH(launch_depthwise_conv(x.view(), weights.data(), 7, 1, y.view(), {}, {}),
                    "kernel depthwise_conv expects a kernel of 3 or 5");
  CHECK_THROWS_WITH(launch_depthwise_conv(x.view(), weights.data(), 3, 1, narrow.view(), {}, {}),
                    "kernel depthwise_conv expects an output of the input's size over the stride");
  CHECK_THROWS_WITH(launch_depthwise_conv(x.view(), weights.data(), 3, 1, half.view(), {}, {}),
                    "kernel depthwise_conv expects input and output of one type");
  Epilogue wrong;
  wrong.residual = narrow.view();
  CHECK_THROWS_WITH(
      launch_depthwise_conv(x.view(), weights.data(), 3, 1, y.view(), wrong, {}),
      "kernel depthwise_conv expects a residual of the input's type and of the output's size or half of it");
}

}  // namespace
}  // namespace damoyolo::kernels
