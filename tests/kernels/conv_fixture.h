// Convolutions with their results in double, for the tests of every kernel that takes a Convolution.
#pragma once

#include <algorithm>
#include <iterator>
#include <map>
#include <span>
#include <sstream>
#include <string>
#include <vector>

#include "kernels/conv.h"
#include "tests/conv_tiles.h"
#include "tests/kernels/device_tensor.h"
#include "tests/wrong_elements.h"

namespace damoyolo::kernels {

// What kernels/conv_sm*.h declare of one kernel.
struct ConvUnderTest {
  std::span<const ConvConfig> (*configs)();
  bool (*fits)(const Convolution&, const ConvConfig&);
  ConvMemory (*memory)(const Convolution&, const ConvConfig&);
  void (*launch)(const Convolution&, const ConvConfig&, Stream);
  int max_split;
};

struct ConvCase {
  enum class Residual { None, Same, Half };

  Size in;
  int out_channels = 8, kernel = 3, stride = 1;
  DType type = DType::BF16, out_type = DType::BF16;
  bool bias = true;
  Activation act = Activation::None;
  Residual residual = Residual::None;
  bool residual_first = true;
  int split = 1;
  Placement x_place = {}, y_place = {}, residual_place = {};

  Size out() const { return {in.n, (in.h + stride - 1) / stride, (in.w + stride - 1) / stride, out_channels}; }
};

// Between them: odd sizes, tails of channels on both sides, maps smaller than a tile and tiles that cross images,
// every end of the sum, slices of buffers, and splits that do not divide the sum, or outnumber its steps.
inline const ConvCase kConvCases[] = {
    {.in = {1, 1, 1, 8}, .kernel = 1, .bias = false},
    {.in = {1, 5, 7, 8}, .bias = false},
    {.in = {3, 4, 5, 24},
     .out_channels = 20,
     .kernel = 1,
     .type = DType::F16,
     .out_type = DType::F16,
     .act = Activation::Relu,
     .residual = ConvCase::Residual::Same,
     .x_place = {8, 16},
     .y_place = {3, 2},
     .residual_place = {8, 8}},
    {.in = {1, 9, 6, 40}, .out_channels = 81, .out_type = DType::F32, .split = 3, .x_place = {0, 24}},
    {.in = {3, 5, 3, 16}, .out_channels = 81, .kernel = 1, .out_type = DType::F32, .act = Activation::Silu},
    {.in = {1, 8, 12, 24},
     .out_channels = 20,
     .stride = 2,
     .act = Activation::Silu,
     .residual = ConvCase::Residual::Half,
     .y_place = {8, 4},
     .residual_place = {3, 2}},
    {.in = {3, 7, 5, 8},
     .out_channels = 40,
     .stride = 2,
     .type = DType::F16,
     .out_type = DType::F16,
     .act = Activation::Relu,
     .split = 2},
    {.in = {1, 13, 13, 40},
     .out_channels = 24,
     .kernel = 1,
     .stride = 2,
     .act = Activation::Silu,
     .residual = ConvCase::Residual::Same,
     .residual_first = false,
     .split = 2,
     .y_place = {16, 8}},
    {.in = {1, 6, 10, 72},
     .out_channels = 64,
     .act = Activation::Relu,
     .residual = ConvCase::Residual::Same,
     .residual_first = false,
     .split = 3},
    {.in = {3, 6, 4, 16},
     .out_channels = 32,
     .kernel = 1,
     .type = DType::F16,
     .out_type = DType::F32,
     .act = Activation::Silu,
     .residual = ConvCase::Residual::Half,
     .residual_first = false,
     .x_place = {8, 0},
     .y_place = {1, 0},
     .residual_place = {0, 8}},
    {.in = {1, 1, 9, 32}, .out_channels = 136, .type = DType::F16, .out_type = DType::F16, .act = Activation::Silu},
    {.in = {3, 13, 11, 16}, .out_channels = 40, .act = Activation::Silu, .y_place = {8, 16}},
    {.in = {2, 12, 10, 24},
     .out_channels = 40,
     .act = Activation::Relu,
     .residual = ConvCase::Residual::Same,
     .y_place = {8, 16},
     .residual_place = {16, 8}},
    {.in = {2, 17, 19, 16},
     .out_channels = 104,
     .kernel = 1,
     .type = DType::F16,
     .out_type = DType::F16,
     .act = Activation::Silu,
     .residual = ConvCase::Residual::Same,
     .residual_first = false,
     .residual_place = {0, 8}},
    {.in = {3, 9, 7, 64},
     .out_channels = 16,
     .kernel = 1,
     .stride = 2,
     .type = DType::F16,
     .out_type = DType::F32,
     .split = kMaxConvSplit},
};

// "3x3 stride 2 of 1x8x12x24 to 20 channels, BF16 to F32, bias, silu, half residual first, in 0+c+0 8+c+4 3+c+2": all
// of a case but its split; behind it, where the channels of the three tensors lie.
inline std::string describe(const ConvCase& test) {
  const auto& [n, h, w, c] = test.in;
  std::ostringstream text;
  text << test.kernel << "x" << test.kernel << " stride " << test.stride << " of " << n << "x" << h << "x" << w << "x"
       << c << " to " << test.out_channels << " channels, " << name_of(test.type) << " to " << name_of(test.out_type)
       << (test.bias ? ", bias" : "") << (test.act == Activation::Relu ? ", relu" : "")
       << (test.act == Activation::Silu ? ", silu" : "");
  if (test.residual != ConvCase::Residual::None)
    text << (test.residual == ConvCase::Residual::Half ? ", half" : ", same") << " residual "
         << (test.residual_first ? "first" : "last");
  text << ", in";
  for (const auto& [before, after] : {test.x_place, test.y_place, test.residual_place})
    text << " " << before << "+c+" << after;
  return text.str();
}

// "128x64x64, 4 stages, 16 columns, split 2, three taps, shared, ping-pong, then 64"
inline std::string describe(const ConvConfig& config) {
  std::ostringstream text;
  text << config.m << "x" << config.n << "x" << config.k << ", " << config.stages << " stages, " << config.columns
       << " columns, split " << config.split << (config.taps == 3 ? ", three taps" : "")
       << (config.sharing == 2 ? ", shared" : "") << (config.pingpong ? ", ping-pong" : "");
  if (config.then > 0) text << ", then " << config.then;
  return text.str();
}

// A case on the device, with what is to come out.
class ConvExample {
 public:
  explicit ConvExample(const ConvCase& test)
      : test_(test),
        x_(test.type, test.in, test.x_place, 1),
        residual_(test.type, residual_size(test), test.residual_place, 3),
        weights_(decode(encode(random_values(weight_count(test), 4, 0.5f), test.type), test.type)),
        bias_(random_values(static_cast<std::size_t>(test.out_channels), 5)),
        device_weights_(encode(weights_, test.type)),
        device_bias_(bias_),
        expected_(known_or_computed()) {}

  // Without the memory for a split.
  Convolution convolution(const DeviceTensor& y) const {
    Convolution convolution{.x = x_.view(),
                            .weights = device_weights_.data(),
                            .kernel = test_.kernel,
                            .stride = test_.stride,
                            .y = y.view(),
                            .epilogue = {}};
    convolution.epilogue = {test_.bias ? device_bias_.data() : nullptr, test_.act, {}, test_.residual_first};
    if (test_.residual != ConvCase::Residual::None) convolution.epilogue.residual = residual_.view();
    return convolution;
  }

  DeviceTensor output() const { return {test_.out_type, test_.out(), test_.y_place, 2}; }

  // With the case's split.
  bool fits(const ConvUnderTest& kernel, ConvConfig config) const {
    config.split = std::min(test_.split, kernel.max_split);
    return kernel.fits(convolution(output()), config);
  }

  // The configuration, and the case.
  std::string describe(const ConvConfig& config) const {
    return kernels::describe(config) + ": " + kernels::describe(test_);
  }

  // What output() holds after a run.
  void check_output(const DeviceTensor& y, const std::vector<float>& got) const {
    const std::string wrong =
        describe_wrong({y.view().h, y.view().w, y.view().c}, got, expected_.values, expected_.bounds, y.initial());
    if (!wrong.empty()) FAIL_CHECK(wrong);
    CHECK(y.others_untouched());
  }

  // The configuration with the case's split. Where blocks share sums, a second run must give the same bytes.
  void check(const ConvUnderTest& kernel, ConvConfig config) const {
    config.split = std::min(test_.split, kernel.max_split);
    const std::string what = describe(config);
    CAPTURE(what);
    const DeviceTensor y = output();
    const std::vector<float> got = run(kernel, config, y);
    check_output(y, got);
    if (config.split == 1) return;
    const DeviceTensor again = output();
    CHECK(run(kernel, config, again) == got);
  }

 private:
  struct Expected {
    std::vector<double> values, bounds;
  };

  static Size residual_size(const ConvCase& test) {
    const auto [n, h, w, c] = test.out();
    return test.residual == ConvCase::Residual::Half ? Size{n, h / 2, w / 2, c} : Size{n, h, w, c};
  }
  static std::size_t weight_count(const ConvCase& test) {
    return static_cast<std::size_t>(test.out_channels * test.kernel * test.kernel * test.in.c);
  }

  std::vector<float> run(const ConvUnderTest& kernel, const ConvConfig& config, const DeviceTensor& y) const {
    Convolution convolution = this->convolution(y);
    REQUIRE(kernel.fits(convolution, config));
    const ConvMemory memory = kernel.memory(convolution, config);
    if (config.split == 1) CHECK(memory.workspace_bytes + memory.tickets == 0);
    // Not a number, wherever the kernel reads what it has not written.
    const DeviceArray<std::byte> workspace(std::vector<std::byte>(memory.workspace_bytes, std::byte{0xff}));
    const DeviceArray<unsigned> tickets(memory.tickets);
    if (memory.workspace_bytes > 0) convolution.workspace = workspace.data();
    if (memory.tickets > 0) convolution.tickets = tickets.data();
    kernel.launch(convolution, config, {});
    CHECK(tickets.download() == std::vector<unsigned>(memory.tickets));
    return y.values();
  }

  // Every tile is given the same cases, and each is computed once.
  const Expected& known_or_computed() const {
    static std::map<std::string, Expected> known;
    const auto [at, is_new] = known.try_emplace(kernels::describe(test_));
    if (is_new) at->second = compute();
    return at->second;
  }

  Expected compute() const {
    Expected expected;
    const auto& [n, h, w, c] = test_.in;
    const Size out = test_.out();
    const int k = test_.kernel, s = test_.stride, shift = test_.residual == ConvCase::Residual::Half ? 1 : 0;
    const auto input = x_.initial(), residual = residual_.initial();
    for (int image = 0; image < n; ++image)
      for (int row = 0; row < out.h; ++row)
        for (int column = 0; column < out.w; ++column)
          for (int channel = 0; channel < out.c; ++channel) {
            double sum = test_.bias ? bias_[channel] : 0, terms = std::abs(sum), add = 0;
            for (int ky = 0; ky < k; ++ky)
              for (int kx = 0; kx < k; ++kx) {
                const int y = row * s + ky - k / 2, x = column * s + kx - k / 2;
                if (y < 0 || y >= h || x < 0 || x >= w) continue;
                const float* values = &input[((image * h + y) * w + x) * c];
                const float* taps = &weights_[((channel * k + ky) * k + kx) * c];
                for (int i = 0; i < c; ++i) {
                  const double term = double{values[i]} * taps[i];
                  sum += term;
                  terms += std::abs(term);
                }
              }
            const int source = (image * (out.h >> shift) + (row >> shift)) * (out.w >> shift) + (column >> shift);
            if (test_.residual != ConvCase::Residual::None) add = residual[source * out.c + channel];
            const double want =
                test_.residual_first ? activated(sum + add, test_.act) : activated(sum, test_.act) + add;
            expected.values.push_back(want);
            expected.bounds.push_back(rounding_bound(test_.out_type, want, terms + 2));
          }
    return expected;
  }

  ConvCase test_;
  DeviceTensor x_, residual_;
  std::vector<float> weights_, bias_;
  DeviceArray<std::byte> device_weights_;
  DeviceArray<float> device_bias_;
  const Expected& expected_;
};

// Every case that `takes` picks, each an Example, by those of the tile's configurations that fit it, in turn.
template <typename Example, typename Cases, typename Takes>
void check_examples(const Cases& cases, const ConvUnderTest& kernel, const ConvTile& tile, int sharing, Takes takes) {
  std::size_t turn = tile.number;
  for (const auto& test : cases) {
    if (!takes(test)) continue;
    const Example example(test);
    std::vector<ConvConfig> fitting;
    std::ranges::copy_if(tile.configs, std::back_inserter(fitting),
                         [&](const ConvConfig& config) { return example.fits(kernel, config); });
    if (fitting.empty()) continue;
    ConvConfig config = fitting[turn++ % fitting.size()];
    config.sharing = sharing;
    example.check(kernel, config);
  }
  CHECK(turn > tile.number);
}

template <typename Takes>
void check_cases(const ConvUnderTest& kernel, const ConvTile& tile, int sharing, Takes takes) {
  check_examples<ConvExample>(kConvCases, kernel, tile, sharing, takes);
}

}  // namespace damoyolo::kernels
