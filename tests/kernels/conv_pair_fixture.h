// Convolutions with another behind them in the same launch.
#pragma once

#include <cmath>
#include <string>
#include <vector>

#include "tests/kernels/conv_fixture.h"

namespace damoyolo::kernels {

struct ConvPairCase {
  ConvCase first;
  int channels = 8;  // of the second
  Activation act = Activation::None;
  bool bias = true;
  Placement place = {};
};

// Between them: as many channels as a tile has and fewer, of both, tails of pixels, slices of buffers, and every end
// of the first sum that a pair can have.
inline const ConvPairCase kConvPairCases[] = {
    {.first = {.in = {1, 5, 7, 8}, .bias = false}, .bias = false},
    {.first = {.in = {3, 13, 11, 16}, .out_channels = 32, .act = Activation::Silu, .y_place = {8, 16}},
     .channels = 24,
     .act = Activation::Silu,
     .place = {8, 8}},
    {.first = {.in = {1, 37, 45, 16}, .out_channels = 32, .stride = 2, .act = Activation::Relu},
     .channels = 32,
     .act = Activation::Relu},
    {.first = {.in = {2, 12, 10, 24},
               .out_channels = 40,
               .act = Activation::Relu,
               .residual = ConvCase::Residual::Same,
               .y_place = {8, 16},
               .residual_place = {16, 8}},
     .channels = 64,
     .act = Activation::Relu,
     .place = {0, 8}},
    {.first = {.in = {2, 6, 9, 72},
               .out_channels = 96,
               .type = DType::F16,
               .out_type = DType::F16,
               .act = Activation::Silu,
               .residual = ConvCase::Residual::Same,
               .residual_first = false},
     .channels = 88},
    {.first = {.in = {2, 19, 26, 16}, .out_channels = 24, .stride = 2, .act = Activation::Silu},
     .channels = 168,
     .act = Activation::Silu},
    {.first = {.in = {1, 19, 17, 40}, .out_channels = 192, .stride = 2, .act = Activation::Relu},
     .channels = 152,
     .act = Activation::Relu},
    {.first =
         {.in = {3, 9, 20, 88}, .out_channels = 128, .act = Activation::Relu, .residual = ConvCase::Residual::Same},
     .channels = 88,
     .act = Activation::Relu},
    {.first = {.in = {1, 21, 9, 64}, .out_channels = 64, .kernel = 1, .type = DType::F16, .out_type = DType::F16},
     .channels = 32,
     .act = Activation::Silu},
};

class ConvPairExample {
 public:
  explicit ConvPairExample(const ConvPairCase& test)
      : test_(test),
        first_(test.first),
        weights_(
            decode(encode(random_values(static_cast<std::size_t>(test.channels * test.first.out_channels), 6, 0.5f),
                          test.first.type),
                   test.first.type)),
        bias_(random_values(static_cast<std::size_t>(test.channels), 7)),
        device_weights_(encode(weights_, test.first.type)),
        device_bias_(bias_) {}

  // y: of the first; the convolution has none of its data where it does not keep it.
  Convolution convolution(const DeviceTensor& y, const DeviceTensor& z, bool keep) const {
    Convolution convolution = first_.convolution(y);
    convolution.keep = keep;
    if (!keep) convolution.y.data = nullptr;
    convolution.then = {
        device_weights_.data(), z.view(), {test_.bias ? device_bias_.data() : nullptr, test_.act, {}, true}};
    return convolution;
  }

  DeviceTensor first_output() const { return first_.output(); }
  DeviceTensor output() const {
    Size size = test_.first.out();
    size.c = test_.channels;
    return {test_.first.type, size, test_.place, 8};
  }

  bool fits(const ConvUnderTest& kernel, const ConvConfig& config) const {
    return kernel.fits(convolution(first_output(), output(), true), config);
  }

  // Both outputs; and that the second is the same where the first is not stored.
  void check(const ConvUnderTest& kernel, const ConvConfig& config) const {
    const std::string what = first_.describe(config) + "; then " + std::to_string(test_.channels) + " channels";
    CAPTURE(what);
    const DeviceTensor y = first_output(), z = output();
    kernel.launch(convolution(y, z, true), config, {});
    const std::vector<float> got = z.values(), middle = y.values();
    first_.check_output(y, middle);
    check_output(z, middle, got);
    const DeviceTensor again = output();
    kernel.launch(convolution(y, again, false), config, {});
    CHECK(again.values() == got);
  }

 private:
  // From what the first has stored, so that roundings of its own do not count.
  void check_output(const DeviceTensor& z, const std::vector<float>& middle, const std::vector<float>& got) const {
    const auto inner = static_cast<std::size_t>(test_.first.out_channels);
    std::vector<double> values, bounds;
    for (std::size_t pixel = 0; pixel * inner < middle.size(); ++pixel)
      for (std::size_t channel = 0; channel < static_cast<std::size_t>(test_.channels); ++channel) {
        double sum = test_.bias ? bias_[channel] : 0, terms = std::abs(sum);
        for (std::size_t i = 0; i < inner; ++i) {
          const double term = double{middle[pixel * inner + i]} * weights_[channel * inner + i];
          sum += term;
          terms += std::abs(term);
        }
        values.push_back(activated(sum, test_.act));
        bounds.push_back(rounding_bound(test_.first.type, values.back(), terms + 2));
      }
    const std::string wrong = describe_wrong({z.view().h, z.view().w, z.view().c}, got, values, bounds, z.initial());
    if (!wrong.empty()) FAIL_CHECK("the second: ", wrong);
    CHECK(z.others_untouched());
  }

  ConvPairCase test_;
  ConvExample first_;
  std::vector<float> weights_, bias_;
  DeviceArray<std::byte> device_weights_;
  DeviceArray<float> device_bias_;
};

inline void check_pairs(const ConvUnderTest& kernel, const ConvTile& tile, int sharing) {
  check_examples<ConvPairExample>(kConvPairCases, kernel, tile, sharing, [](const ConvPairCase&) { return true; });
}

}  // namespace damoyolo::kernels
